// The admin API: changes with the token where one is needed, and what went wrong in its own words.

import {element} from "./format.js";

const KEY = "gogate-token";

export function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.hidden = true; }, 5000);
}

export async function read(path) {
  const token = sessionStorage.getItem(KEY);
  const answer = await fetch(path, {headers: {Accept: "application/json", ...(token && {Authorization: `Bearer ${token}`})}});
  if (!answer.ok) throw new Error(await problemOf(answer));
  return answer.json();
}

export async function change(method, path, body = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const answer = await fetch(path, {
      method, body: method === "DELETE" ? undefined : JSON.stringify(body),
      headers: {"Content-Type": "application/json", ...(token && {Authorization: `Bearer ${token}`})},
    });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const why = await problemOf(answer);
    if (answer.status !== 401) throw new Error(why);
    sessionStorage.removeItem(KEY);
    if (!await askForToken(why)) throw new Error("Nothing was changed.");
  }
}

async function problemOf(answer) {
  try {
    return (await answer.json()).detail || `${answer.status} ${answer.statusText}`;
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

document.getElementById("token-cancel").addEventListener("click", () => document.getElementById("token").close(""));

function askForToken(why) {
  const dialog = document.getElementById("token");
  const value = document.getElementById("token-value");
  document.getElementById("token-why").replaceChildren(element("span", {}, why));
  value.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  value.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && value.value;
      if (given) sessionStorage.setItem(KEY, value.value);
      value.value = "";
      resolve(Boolean(given));
    }, {once: true});
  });
}
