// The page that was asked for is opened after the log-in: the form carries its address on.
// The server answers a wrong token with this page at /login; elsewhere no token was given yet.

const again = location.pathname === "/login" && location.search !== "";
const next = location.pathname === "/login"
  ? (new URLSearchParams(location.search).get("next") ?? "/")
  : location.pathname + location.search;
document.querySelector("form").action = `/login?${new URLSearchParams({ next })}`;
document.getElementById("wrong-token").hidden = !again;
