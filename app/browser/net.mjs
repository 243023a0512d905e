// Six machines on this one: the broker, the farm and the phone each behind a
// router of its own that translates addresses, and the net between them; each
// a network namespace with its own cables, so that a fault is a real one. Needs
// root. All of it is gone when the processes that hold the namespaces are.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, createServer } from 'node:net';

/** The public net: a range that is set aside for tests of networks (RFC 2544). */
const PUBLIC = '198.18';

/** Of each site the third part of its addresses, public and at home. */
const SITES = { broker: 1, farm: 2, phone: 3 };

/** A device at home, and its router. */
const home = (site, last) => `192.168.${SITES[site]}.${last}`;

/** A site as the others see it; `.1` is the net's own end of the cable. */
const outside = (site, last) => `${PUBLIC}.${SITES[site]}.${last}`;

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
    for (const name of ['core', 'broker', 'farm-router', 'farm', 'phone-router', 'phone']) {
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
    for (const name of Object.keys(net.holders)) net.run(name, 'ip link set lo up');
    net.cable('core', outside('broker', 1), 'broker', outside('broker', 2));
    for (const site of ['farm', 'phone']) {
      net.cable('core', outside(site, 1), `${site}-router`, outside(site, 2));
      net.cable(`${site}-router`, home(site, 1), site, home(site, 2));
      // A second public address, for when the router gets another one.
      net.run(`${site}-router`, `ip addr add ${outside(site, 9)}/24 dev eth0`);
      net.appearsAs(site, 2);
    }
    for (const name of ['core', 'farm-router', 'phone-router'])
      net.run(name, 'echo 1 > /proc/sys/net/ipv4/ip_forward');
    net.run(
      'core',
      load(
        'table ip guard {',
        ' set blocked { type inet_proto; }',
        ' chain through { type filter hook forward priority 0; meta l4proto @blocked drop; }',
        '}',
      ),
    );
    return net;
  }

  /** Where the broker is. */
  brokerHost = outside('broker', 2);

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

  /** A cable from `above` to the `eth0` of `below`, whose way out it is. */
  cable(above, gateway, below, address) {
    // Names of interfaces have 15 signs at the most.
    const port = `to-${below.split('-')[0]}`;
    this.run(
      above,
      `ip link add ${port} type veth peer name eth0 netns ${this.holders[below].pid}`,
      `ip addr add ${gateway}/24 dev ${port}`,
      `ip link set ${port} up`,
    );
    this.run(
      below,
      `ip addr add ${address}/24 dev eth0`,
      'ip link set eth0 up',
      `ip route add default via ${gateway}`,
    );
  }

  /** A site's router shows it under this public address, and forgets what it translated before. */
  appearsAs(site, last) {
    this.run(
      `${site}-router`,
      load(
        'flush ruleset',
        'table ip nat {',
        ` chain out { type nat hook postrouting priority 100; oifname eth0 snat to ${outside(site, last)}; }`,
        '}',
        'table ip guard {',
        // Uninvited packets would make entries that stand in the way of our own.
        ' chain in { type filter hook input priority 0; meta l4proto udp drop; }',
        ` chain through { type filter hook forward priority 0; oifname to-${site} ct state new drop; }`,
        '}',
      ),
    );
    this.forget(site);
  }

  /** A site's router forgets everything that it translated. */
  forget(site) {
    this.run(`${site}-router`, 'conntrack -F 2>/dev/null || true');
  }

  /** Whether datagrams pass the net. */
  blockDatagrams(blocked) {
    this.run('core', `nft ${blocked ? 'add' : 'delete'} element ip guard blocked '{ udp }'`);
  }

  /** Pulls a device's plug, or puts it back. */
  plug(site, there) {
    this.run(site, `ip link set eth0 ${there ? 'up' : 'down'}`);
    if (there) this.run(site, `ip route replace default via ${home(site, 1)}`);
  }

  /** Another address on the same cable. */
  readdress(site, from, to) {
    this.run(
      site,
      `ip addr del ${home(site, from)}/24 dev eth0`,
      `ip addr add ${home(site, to)}/24 dev eth0`,
      `ip route add default via ${home(site, 1)}`,
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

/** A command that loads these rules. */
const load = (...rules) => `printf '%s\\n' '${rules.join("' '")}' | nft -f -`;
