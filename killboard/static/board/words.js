// How the board writes numbers, times and names. Pure: no document, no network.

const SIZES = [
  [1e12, "t"],
  [1e9, "b"],
  [1e6, "m"],
  [1e3, "k"],
];

/** ISK in three figures or so: 1234567890 is "1.23 b". null (not valued yet) is "–". */
export function shortIsk(value) {
  if (value === null) return "–";
  // 999,950 would be written "1000 k": a size is taken from 0.9995 of it on.
  const size = SIZES.find(([least]) => value >= least * 0.9995);
  if (!size) return value.toFixed(0);
  const figures = value / size[0];
  const decimals = figures >= 99.95 ? 0 : figures >= 9.995 ? 1 : 2;
  return `${figures.toFixed(decimals)} ${size[1]}`;
}

export function exactIsk(value) {
  return value === null ? "Not valued yet" : `${Math.round(value).toLocaleString("en")} ISK`;
}

/** How long ago: "just now", "42 s", "5 min", "3 h", "2 d". A clock that runs behind does not make it negative. */
export function age(time, now) {
  const seconds = Math.floor((now - Date.parse(time)) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  const days = Math.floor(seconds / 86400);
  return days < 365 ? `${days} d` : `${Math.floor(days / 365)} y`;
}

/** EVE's own clock is UTC: "2026-11-23 07:40:05". */
export function exactTime(time) {
  return new Date(time).toISOString().slice(0, 19).replace("T", " ");
}

/** Security as the game shows it: one decimal, but what is barely above 0.0 is 0.1, not 0.0. */
export function security(status) {
  if (status === null) return null;
  if (status > 0 && status < 0.05) return "0.1";
  const tenths = Math.sign(status) * Math.round(Math.abs(status) * 10);
  return (tenths / 10 || 0).toFixed(1);
}

/** What to call an entity: its name, or its kind and the start of its id while the board does not know the name. */
export function called(entity, kind) {
  if (entity.name !== null) return { text: entity.name, known: true, title: entity.name };
  return { text: `${kind} ${entity.id}`, known: false, title: `${kind} ${entity.id}, name not known yet` };
}
