// The log-in is shown at /login only after a token that was not the right one.
document.getElementById("wrong").hidden = location.pathname !== "/login";
