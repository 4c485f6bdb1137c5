// server.js WAY PORT: an HTTP server that tells both addresses, alone or as workers of a cluster.
const cluster = require('cluster');
const http = require('http');
const [way, port] = process.argv.slice(2);

function serve() {
  const server = http.createServer((request, response) => {
    const { remoteAddress, remotePort, localAddress, localPort } = request.socket;
    const peer = remoteAddress + ':' + remotePort, local = localAddress + ':' + localPort;
    response.end(JSON.stringify({ name: way, peer, local, pid: process.pid }));
  });
  server.listen(Number(port), '0.0.0.0', () => {
    const { address, port } = server.address();
    console.log('listening ' + address + ':' + port);
  });
}

if (way === 'shared') cluster.schedulingPolicy = cluster.SCHED_NONE;
if (way === 'node' || cluster.isWorker) serve();
else for (let count = 0; count < 2; count++) cluster.fork();
