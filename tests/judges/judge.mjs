// Node's TLS as a judge: each leaf is presented in a handshake on loopback; reads JSON, writes what was said, "" for accepted.
import { createServer, connect } from "node:tls";
import { readFileSync } from "node:fs";

const { cases, other } = JSON.parse(readFileSync(0, "utf8"));

function handshake(one) {
  const presented = { cert: one.pem, key: one.key };
  const judging = { ca: one.root, crl: one.crls, rejectUnauthorized: false }; // what was wrong is asked for afterwards
  const serves = one.purpose === "server";
  const verdict = (socket) => (socket.authorized ? "" : String(socket.authorizationError));
  const server = createServer({
    minVersion: "TLSv1.3",
    ...(serves ? presented : { ...other, ...judging, requestCert: true }),
  });
  return new Promise((resolve, reject) => {
    const done = (said) => server.close(() => resolve(said));
    server.on("tlsClientError", reject);
    server.on("secureConnection", (socket) => {
      socket.on("error", () => {});
      socket.end();
      if (!serves) done(verdict(socket));
    });
    server.listen(0, "127.0.0.1", () => {
      const client = connect({
        port: server.address().port,
        host: "127.0.0.1",
        checkServerIdentity: () => undefined, // names are compared by daskpki's own rules
        ...(serves ? judging : { ...presented, rejectUnauthorized: false }),
      });
      client.on("secureConnect", () => {
        client.end();
        if (serves) done(verdict(client));
      });
      client.on("error", (error) => serves && reject(error));
      client.resume();
    });
  });
}

const verdicts = {};
for (const one of cases) verdicts[one.name] = await handshake(one);
console.log(JSON.stringify(verdicts));
