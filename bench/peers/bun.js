// Bun's WebSocket server (uWebSockets), in memory, one process: bun bun.js PORT
// As https://bun.sh/docs/api/websockets advises: native publish/subscribe, no compression.
const sessions = new Map();

Bun.serve({
  port: Number(process.argv[2]),
  hostname: "127.0.0.1",
  fetch(request, server) {
    const [, kind, name, target] = new URL(request.url).pathname.split("/");
    if (server.upgrade(request, { data: { kind, name, target } })) return undefined;
    return new Response("ready");
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0,
    open(ws) {
      if (ws.data.kind === "topic") ws.subscribe(ws.data.name);
      else if (ws.data.kind === "session") sessions.set(ws.data.name, ws);
    },
    message(ws, message) {
      if (ws.data.kind === "publish") ws.publish(ws.data.name, message);
      else sessions.get(ws.data.target)?.send(message);
    },
    close(ws) {
      if (sessions.get(ws.data.name) === ws) sessions.delete(ws.data.name);
    },
  },
});
