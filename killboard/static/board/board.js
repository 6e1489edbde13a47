// The first page: keeps the table equal to what a reload would show, and says honestly whether it is.

import { fill, refreshAge } from "./row.js";
import { SHOWN, address, fetchList, listen } from "./source.js";

const byId = (id) => document.getElementById(id);
const rowsById = new Map();
// The killmails on show, by id. Never more than SHOWN, however long the page stays open.
let killmails = new Map();
// Ids that an event brought while a list was on its way: the event is as new as the list, or newer.
let touched = new Set();

let listening = false; // the subscription is confirmed
let fresh = false; // the list was read after that, so nothing is missing
let everRead = false;
let wasLive = false;
let readAt = Date.now();
let lostAt = Date.now();
let reading = false;
let readAgain = false;
let retry = null;
let failures = 0;
let arrivals = 0;
let drawing = null;

/** Newest first; the id decides between killmails of one second. The same order as the API's. */
function newestFirst(a, b) {
  return Date.parse(b.time) - Date.parse(a.time) || Number(b.id) - Number(a.id);
}

function put(killmail) {
  killmails.set(killmail.id, killmail);
  if (killmails.size <= SHOWN) return;
  const last = [...killmails.values()].sort(newestFirst).at(-1);
  killmails.delete(last.id);
}

function receive({ kind, killmail }) {
  if (killmail) {
    touched.add(killmail.id);
    put(killmail);
    drawSoon();
  } else if (kind !== "CHECKPOINT") {
    readList(); // an event that could not be read: the list tells what it was
  } else if (!listening) {
    // The stream begins anew here. Only a list read from now on surely holds what came while the line was down.
    listening = true;
    readList();
  }
}

function lose() {
  if (listening || fresh) lostAt = Date.now();
  listening = fresh = false;
  showState();
}

/** Reads the list, one at a time: asked for while one is on its way, it is read once more after that. */
async function readList() {
  if (reading) {
    readAgain = true;
    return;
  }
  clearTimeout(retry);
  reading = true;
  readAgain = false;
  readAt = Date.now();
  touched = new Set();
  const confirmed = listening;
  try {
    takeList(await fetchList(), confirmed);
  } catch (error) {
    failList(error);
  }
  reading = false;
  if (readAgain) readList();
}

function takeList({ mode, killmails: listed }, confirmed) {
  const live = [...touched].map((id) => killmails.get(id)).filter(Boolean);
  killmails = new Map(listed.map((killmail) => [killmail.id, killmail]));
  live.forEach(put);
  failures = 0;
  fresh = confirmed && listening && !readAgain;
  byId("trouble").hidden = true;
  byId("banner-recorded").hidden = mode !== "RECORDED";
  byId("banner-off").hidden = mode !== "OFF";
  draw();
  everRead = true;
  showState();
}

function failList(error) {
  const wait = Math.min(60_000, 2000 * 2 ** failures++) * (0.75 + Math.random() / 2);
  retry = setTimeout(readList, wait);
  byId("trouble").textContent = `The list of killmails could not be read: ${error.message}. Trying again.`;
  byId("trouble").hidden = false;
}

function drawSoon() {
  // A burst of events is drawn once. Not by requestAnimationFrame, which stands still in a hidden tab.
  drawing ??= setTimeout(draw, 50);
}

function draw() {
  clearTimeout(drawing);
  drawing = null;
  const sorted = [...killmails.values()].sort(newestFirst);
  const body = byId("killmails");
  let next = body.firstElementChild;
  for (const killmail of sorted) {
    const row = rowFor(killmail);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  while (next) {
    const gone = next;
    next = next.nextElementSibling;
    rowsById.delete(gone.dataset.id);
    gone.remove();
  }
  showCount(sorted.length);
}

/** The row of a killmail: made and highlighted when it is new on the board, filled again when it has changed. */
function rowFor(killmail) {
  let row = rowsById.get(killmail.id);
  if (!row) {
    row = document.createElement("tr");
    row.setAttribute("role", "row");
    rowsById.set(killmail.id, row);
    if (everRead) announce(row);
  }
  const content = JSON.stringify(killmail);
  if (row.content !== content) fill(row, killmail);
  row.content = content;
  return row;
}

function announce(row) {
  arrivals += 1;
  row.classList.add("arrived");
  setTimeout(() => row.classList.remove("arrived"), 4000);
}

function showCount(shown) {
  byId("board").setAttribute("aria-busy", "false");
  byId("empty").hidden = shown > 0;
  byId("empty").textContent = "No killmails yet. They appear here by themselves as soon as the feed brings one.";
  byId("count").textContent = arrivals ? `${arrivals.toLocaleString("en")} new since you opened this page` : "";
}

function showState() {
  const away = navigator.onLine === false || Date.now() - lostAt > 30_000;
  const states = {
    live: ["live", "New killmails appear by themselves"],
    connecting: ["connecting", "Opening the line to the board"],
    reconnecting: ["reconnecting", "The line to the board was lost; what you see may be old. Trying again"],
    offline: ["offline", "No live line for more than half a minute; what you see may be old. Still trying"],
  };
  const state = fresh ? "live" : away ? "offline" : wasLive ? "reconnecting" : "connecting";
  const [text, title] = states[state];
  byId("state").dataset.state = state;
  byId("state").title = title;
  byId("state-text").textContent = text;
  wasLive ||= fresh;
}

function everySoOften() {
  const now = Date.now();
  rowsById.forEach((row) => refreshAge(row, now));
  // Where websockets do not get through, the list is read now and then instead.
  if (!listening && !failures && now - readAt > 30_000) readList();
  showState();
}

function speakCount() {
  // A screen reader hears at most this often of new killmails, not for each.
  byId("count-spoken").textContent = byId("count").textContent;
}

document.querySelectorAll("[data-address]").forEach((element) => {
  element.textContent = address(element.dataset.address);
});
byId("state").hidden = byId("empty").hidden = false;
showState();
setInterval(everySoOften, 5000);
setInterval(speakCount, 20_000);
addEventListener("offline", showState);
addEventListener("online", showState);
readList();
listen(receive, lose);
