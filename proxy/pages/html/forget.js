
{
  try {
    localStorage.removeItem("authproxy_token");
  } catch {
    // Storage is blocked: there is nothing to remove.
  }
  location.replace(document.getElementById("go").href);
}
