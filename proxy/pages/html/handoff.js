
{
  const go = document.getElementById("go");
  try {
    localStorage.setItem("authproxy_token", go.dataset.token);
  } catch {
    // Storage is blocked: the app will find no token.
  }
  location.replace(go.href);
}
