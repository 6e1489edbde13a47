// The reference client: subscribes at argv[2], prints each event as one line of JSON, ends after argv[3] killmails.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, count] = process.argv.slice(2);
const query = process.env.QUERY;
const client = createClient({ url, webSocketImpl: WebSocket, retryAttempts: 0 });
let left = Number(count);

for await (const result of client.iterate({ query })) {
  console.log(JSON.stringify(result));
  if (result.data?.killmailEvents?.kind === 'ADDED' && --left === 0) break;
}
await client.dispose();
