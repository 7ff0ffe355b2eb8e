package oidc_test

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
