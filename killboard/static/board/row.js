// One killmail as a row of the table. Whatever came from the network is inserted as text, never as markup.

import { age, called, exactIsk, exactTime, security, shortIsk } from "./words.js";

/** Fills `row`, a <tr>, with the killmail; what it held before is dropped. */
export function fill(row, killmail) {
  row.dataset.id = killmail.id;
  row.replaceChildren(
    cell("time", [timeOf(killmail.time)]),
    cell("ship", shipLines(killmail.victim.shipType)),
    cell("victim", partyLines(killmail.victim)),
    cell("system", systemLines(killmail.solarSystem)),
    cell("final", finalBlowLines(killmail.finalBlow)),
    cell("attackers", attackerLines(killmail)),
    cell("value", [valueLine(killmail.totalValue)]),
  );
}

/** Brings the relative time of a row up to date without touching anything else. */
export function refreshAge(row, now) {
  const time = row.querySelector("time");
  const text = age(time.dateTime, now);
  if (time.textContent !== text) time.textContent = text;
}

function cell(name, children) {
  const td = document.createElement("td");
  td.className = name;
  td.setAttribute("role", "cell");
  td.append(...children);
  return td;
}

function line(className, text) {
  const span = document.createElement("span");
  span.className = className;
  span.textContent = text;
  return span;
}

function titled(element, title) {
  if (title) element.title = title;
  return element;
}

function timeOf(time) {
  const element = document.createElement("time");
  element.dateTime = time;
  element.textContent = age(time, Date.now());
  return titled(element, `${exactTime(time)} EVE time (UTC)`);
}

function entityLine(className, entity, kind) {
  const { text, known, title } = called(entity, kind);
  // A narrow column cuts names short; the title has the whole.
  return titled(line(known ? className : `${className} unknown`, text), title);
}

function shipLines(shipType) {
  const lines = [entityLine("main", shipType, "Type")];
  if (shipType.group) lines.push(entityLine("second", shipType.group, "Group"));
  return lines;
}

/** Who lost it or did it: the first that there is over the others. Structures and NPCs have no pilot. */
function partyLines({ character, corporation, alliance, faction }, ship = null) {
  const parts = [
    [character ?? ship, character ? "Character" : "Type"],
    [corporation, "Corporation"],
    [alliance, "Alliance"],
    // A pilot's militia says less than the corporation; for an NPC it is all there is.
    [character ? null : faction, "Faction"],
  ].filter(([entity]) => entity);
  if (!parts.length) return [line("main unknown", "Unknown")];
  const [first, ...others] = parts;
  const main = entityLine("main", ...first);
  if (!others.length) return [main];
  const second = line("second", "");
  others.forEach(([entity, kind], index) => second.append(index ? " · " : "", entityLine("", entity, kind)));
  return [main, titled(second, second.textContent)];
}

function finalBlowLines(finalBlow) {
  // An NPC is told by what it flies; nobody else has a name for it.
  return finalBlow ? partyLines(finalBlow, finalBlow.shipType) : [line("main unknown", "Unknown")];
}

function valueLine(value) {
  return titled(line(value === null ? "unknown" : "isk", shortIsk(value)), exactIsk(value));
}

function systemLines(solarSystem) {
  const main = line("main", "");
  const status = security(solarSystem.securityStatus);
  if (status !== null) {
    const band = Math.max(0, Math.round(Number(status) * 10));
    main.append(titled(line(`security s${band}`, status), `Security status ${status}`), " ");
  }
  main.append(entityLine("", solarSystem, "System"));
  const region = solarSystem.constellation?.region;
  return region ? [main, entityLine("second", region, "Region")] : [main];
}

const FLAGS = [
  ["isSolo", "solo", "One pilot alone did it"],
  ["isNpc", "npc", "Only NPCs were involved"],
  ["isAwox", "awox", "The final blow came from the victim's own corporation"],
];

function attackerLines(killmail) {
  const count = line("main", killmail.attackerCount.toLocaleString("en"));
  // Only a card on a phone shows the word: in the table the column says it.
  count.append(line("word", killmail.attackerCount === 1 ? " attacker" : " attackers"));
  const chips = FLAGS.filter(([field]) => killmail[field]).map(([, name, title]) => titled(line(`chip ${name}`, name), title));
  return [count, ...chips];
}
