// The page that was asked for is opened after the log-in: the form carries its address on.
// The server answers a wrong token with this page at /login; elsewhere no token was given yet.

const isLogin = location.pathname.endsWith("/login");
const again = isLogin && location.search !== "";
const next = isLogin
  ? (new URLSearchParams(location.search).get("next") ?? "/")
  : location.pathname + location.search;
const form = document.querySelector("form");
form.action = `${form.getAttribute("action")}?${new URLSearchParams({ next })}`;
document.getElementById("wrong-token").hidden = !again;
