// The server answers a wrong token with this page at /login; elsewhere no token was given yet.
document.getElementById("wrong-token").hidden = location.pathname !== "/login";
