// Four machines on this one: the broker, the farm behind a router that
// translates addresses, the phone, and that router; each a network namespace
// with its own cables, so that a fault is a real one. Needs root. All of it is
// gone when the processes that hold the namespaces are.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, createServer } from 'node:net';

/** Network prefix: a range that is set aside for tests of networks (RFC 2544). */
const NET = '198.18';

/** What it takes to make namespaces here; `null` where that works. */
export function obstacle() {
  if (process.getuid?.() !== 0) return 'not root';
  for (const tool of ['ip', 'nft', 'conntrack', 'unshare', 'nsenter']) {
    if (!['/usr/sbin', '/usr/bin', '/sbin', '/bin'].some(folder => existsSync(`${folder}/${tool}`)))
      return `${tool} is missing`;
  }
  const tried = spawnSync('unshare', ['--net', 'true']);
  return tried.status === 0 ? null : `no namespaces: ${tried.stderr}`.trim();
}

export class Net {
  holders = {};
  servers = [];

  static async start() {
    const net = new Net();
    for (const name of ['router', 'broker', 'farm', 'phone']) {
      const child = spawn('unshare', ['--net', 'sleep', '3600'], { stdio: 'ignore' });
      net.holders[name] = child;
    }
    // `unshare` becomes `sleep` once the namespace is there.
    for (const child of Object.values(net.holders)) {
      while (spawnSync('readlink', [`/proc/${child.pid}/ns/net`]).stdout.equals(own())) {
        if (child.exitCode !== null) throw new Error('a namespace could not be made');
        await new Promise(resolve => setTimeout(resolve, 5));
      }
    }
    net.run('router', 'ip link set lo up');
    for (const [at, name] of ['broker', 'farm', 'phone'].entries()) {
      const subnet = `${NET}.${at + 1}`;
      net.run(
        'router',
        `ip link add to-${name} type veth peer name eth0 netns ${net.holders[name].pid}`,
        `ip addr add ${subnet}.1/24 dev to-${name}`,
        `ip link set to-${name} up`,
      );
      net.run(name, 'ip link set lo up', `ip addr add ${subnet}.2/24 dev eth0`, 'ip link set eth0 up');
      net.run(name, `ip route add default via ${subnet}.1`);
    }
    net.run('router', `ip addr add ${NET}.1.9/24 dev to-broker`, `ip addr add ${NET}.3.9/24 dev to-phone`);
    net.run('router', 'echo 1 > /proc/sys/net/ipv4/ip_forward');
    net.farmAppearsAs(1);
    return net;
  }

  /** Where the broker is. */
  brokerHost = `${NET}.1.2`;

  /** What goes before a command that runs on this machine. */
  on(name) {
    return ['nsenter', '-t', String(this.holders[name].pid), '-n'];
  }

  run(name, ...commands) {
    for (const command of commands) {
      const [program, ...args] = this.on(name);
      const { status, stderr } = spawnSync(program, [...args, 'sh', '-c', command]);
      if (status !== 0) throw new Error(`${name}: ${command}: ${stderr}`);
    }
  }

  /** The farm's router gives it another public address, and forgets what it translated. */
  farmAppearsAs(last) {
    const rules = [
      'flush ruleset',
      'table ip nat {',
      ' chain out {',
      '  type nat hook postrouting priority 100;',
      `  ip saddr ${NET}.2.0/24 oifname to-broker snat to ${NET}.1.${last}`,
      `  ip saddr ${NET}.2.0/24 oifname to-phone snat to ${NET}.3.${last}`,
      ' }',
      '}',
      'table ip guard {',
      ' set blocked { type inet_proto; }',
      // Uninvited packets would make entries that stand in the way of our own.
      ' chain in { type filter hook input priority 0; meta l4proto udp drop; }',
      ' chain through {',
      '  type filter hook forward priority 0;',
      '  meta l4proto @blocked drop',
      '  oifname to-farm ct state new drop',
      ' }',
      '}',
    ];
    this.run(
      'router',
      `printf '%s\\n' '${rules.join("' '")}' | nft -f -`,
      'conntrack -F 2>/dev/null || true',
    );
  }

  /** The router forgets everything that it translated. */
  forget() {
    this.run('router', 'conntrack -F 2>/dev/null || true');
  }

  /** Whether datagrams pass the router. */
  blockDatagrams(blocked) {
    this.run('router', `nft ${blocked ? 'add' : 'delete'} element ip guard blocked '{ udp }'`);
  }

  /** Pulls the plug, or puts it back. */
  plug(name, there) {
    this.run(name, `ip link set eth0 ${there ? 'up' : 'down'}`);
    if (there) this.run(name, `ip route add default via ${this.subnet(name)}.1`);
  }

  subnet(name) {
    return `${NET}.${['broker', 'farm', 'phone'].indexOf(name) + 1}`;
  }

  /** Another address on the same cable. */
  readdress(name, from, to) {
    const subnet = this.subnet(name);
    this.run(
      name,
      `ip addr del ${subnet}.${from}/24 dev eth0`,
      `ip addr add ${subnet}.${to}/24 dev eth0`,
      `ip route add default via ${subnet}.1`,
    );
  }

  /** A port here that leads to a port of a machine's own loopback, whatever happens to its network. */
  async tunnel(name, port, folder) {
    const path = `${folder}/${name}-${port}.sock`;
    const script = `require('net').createServer(c=>{const d=require('net').connect(${port},'127.0.0.1');
      c.pipe(d).pipe(c);for(const s of [c,d])s.on('error',()=>{c.destroy();d.destroy()})}).listen('${path}')`;
    const [program, ...args] = this.on(name);
    const child = spawn(program, [...args, process.execPath, '-e', script], { stdio: 'ignore' });
    const server = createServer(socket => {
      const inner = connect(path);
      socket.pipe(inner).pipe(socket);
      for (const one of [socket, inner])
        one.on('error', () => {
          socket.destroy();
          inner.destroy();
        });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    while (!existsSync(path)) await new Promise(resolve => setTimeout(resolve, 5));
    this.servers.push({ child, server });
    return server.address().port;
  }

  stop() {
    for (const { child, server } of this.servers) {
      server.close();
      child.kill();
    }
    for (const child of Object.values(this.holders)) child.kill('SIGKILL');
  }
}

const own = () => spawnSync('readlink', ['/proc/self/ns/net']).stdout;
