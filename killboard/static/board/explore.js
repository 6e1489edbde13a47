// Starts GraphiQL for the address that this page was served from: queries by HTTP, subscriptions by websocket.

const { GraphiQL, React, ReactDOM, graphqlWs } = globalThis;

const FIRST_QUERY = `# This subscription runs as it stands:
# press the pink button, or Ctrl+Enter.
#
# At once comes an event of kind CHECKPOINT. It says
# that you are listening, and has no killmail.
# Then killmails come as the board stores them:
#   ADDED    a new one
#   UPDATED  one of them has changed: a value, a label
# The panel on the right shows the latest event.
#
# A name is null until the board has learned it.
# Values are in ISK. Ctrl+Space offers more fields;
# the book on the left describes each of them.

subscription Killmails {
  killmailEvents {
    kind
    position
    killmail {
      id
      time
      totalValue
      solarSystem {
        name
        securityStatus
      }
      victim {
        character {
          name
        }
        corporation {
          name
        }
        shipType {
          name
        }
      }
      attackerCount
      finalBlow {
        character {
          name
        }
        shipType {
          name
        }
      }
    }
  }
}

# To ask for what is stored already, put this in its place:
#
# query LastKillmails {
#   killmails(first: 5) {
#     nodes { id time totalValue }
#   }
# }
`;

function here(scheme) {
  const address = new URL(location.pathname, location.href);
  if (scheme === "ws") address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

const fetcher = GraphiQL.createFetcher({
  url: here("http"),
  wsClient: graphqlWs.createClient({ url: here("ws"), retryAttempts: Infinity }),
});

const back = React.createElement("a", { href: "/", className: "back" }, "← Killboard");
const logo = React.createElement(GraphiQL.Logo, null, back);
const properties = { fetcher, defaultQuery: FIRST_QUERY, defaultTheme: "dark" };
ReactDOM.createRoot(document.getElementById("graphiql")).render(React.createElement(GraphiQL, properties, logo));
