// Where the board gets its killmails: the public API, by HTTP for the list and by websocket for what is new.

const { graphqlWs } = globalThis;

/** The first page shows so many killmails and keeps no more. */
export const SHOWN = 25;

// So long may the board keep silent, in milliseconds, before its line counts as lost.
const SILENCE = 10_000;

const ROW = `
fragment Row on Killmail {
  id
  time
  totalValue
  attackerCount
  isNpc
  isSolo
  isAwox
  solarSystem { id name securityStatus constellation { region { id name } } }
  victim {
    character { id name }
    corporation { id name }
    alliance { id name }
    faction { id name }
    shipType { id name group { id name } }
  }
  finalBlow {
    character { id name }
    corporation { id name }
    alliance { id name }
    faction { id name }
    shipType { id name }
  }
}`;
const LIST = `query FirstPage { feed { mode } killmails(first: ${SHOWN}) { nodes { ...Row } } }${ROW}`;
const EVENTS = `subscription FirstPage { killmailEvents { kind killmail { ...Row } } }${ROW}`;

export function address(scheme) {
  const url = new URL("/graphql", location.href);
  if (scheme === "ws") url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/** The last killmails and the feed's mode: `{mode, killmails}`. Throws an Error that a reader can understand. */
export async function fetchList() {
  const request = {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ query: LIST, operationName: "FirstPage" }),
    signal: AbortSignal.timeout(15_000),
  };
  const response = await fetch(address("http"), request).catch((error) => {
    // Browsers differ in what they say of a host that is not there, and none says it well.
    throw new Error("The board does not answer", { cause: error });
  });
  const answer = await response.json().catch(() => ({}));
  if (answer.data?.killmails) return { mode: answer.data.feed.mode, killmails: answer.data.killmails.nodes };
  throw new Error(answer.errors?.[0]?.message ?? `The board answered with HTTP status ${response.status}`);
}

/**
 * Listens for ever. `onEvent({kind, killmail})` for each event; `onDown()` whenever the line is lost.
 * After each loss the stream begins anew, and its first event is a CHECKPOINT again: what came between is not repeated.
 */
export function listen(onEvent, onDown) {
  const client = graphqlWs.createClient({
    url: address("ws"),
    retryAttempts: Infinity,
    shouldRetry: () => true,
    // From about one second to twenty, spread so that a restarted server does not meet all browsers at once.
    retryWait: (retries) => waitOrOnline(Math.min(15_000, 1000 * 2 ** retries) * (0.5 + Math.random())),
    connectionAckWaitTimeout: SILENCE,
    keepAlive: 25_000,
  });
  client.on("closed", onDown);
  client.on("error", onDown);
  hangUpOnSilence(client);
  subscribeForEver(client, onEvent, onDown);
}

function subscribeForEver(client, onEvent, onDown) {
  // The server ended or refused the stream, which the client takes as final; a board left open overnight tries again.
  const beginAgain = () => {
    onDown();
    setTimeout(() => subscribeForEver(client, onEvent, onDown), 15_000 * (1 + Math.random()));
  };
  const next = ({ data }) => onEvent(data?.killmailEvents ?? { kind: "UNREADABLE", killmail: null });
  client.subscribe({ query: EVENTS, operationName: "FirstPage" }, { next, error: beginAgain, complete: beginAgain });
}

/** A line can die without a word (a laptop that slept, a mobile network lost): no answer to a ping counts as lost. */
function hangUpOnSilence(client) {
  let silence;
  client.on("ping", (received) => {
    if (!received) silence = setTimeout(() => client.terminate(), SILENCE);
  });
  client.on("pong", () => clearTimeout(silence));
  client.on("closed", () => clearTimeout(silence));
}

/** Resolves after so many milliseconds, or as soon as the browser says that there is a network again. */
function waitOrOnline(milliseconds) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
  });
}
