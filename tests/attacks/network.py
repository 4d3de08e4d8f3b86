"""Attacks on the network and on local services: nothing may be reached, offered or learned."""

from __future__ import annotations

from .attack import Attack, heard, said

ATTACKS = {
    "reach a TCP service": Attack("socket.create_connection(('127.0.0.1', tcp)).send(b'hit tcp')", heard("hit tcp")),
    "send a UDP packet": Attack(
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hit udp', ('127.0.0.1', udp))", heard("hit udp")
    ),
    "reach a unix socket by path": Attack(
        "s = socket.socket(socket.AF_UNIX); s.connect(unix); s.send(b'hit unix')", heard("hit unix")
    ),
    "reach an abstract unix socket": Attack(
        "s = socket.socket(socket.AF_UNIX); s.connect('\\0' + abstract); s.send(b'hit abstract')", heard("hit abstract")
    ),
    "reach a socket from a socket pair": Attack(
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'hit pair', datagram)",
        heard("hit pair"),
    ),
    "pass a message by sendmmsg": Attack(
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendmsg([b'hit mmsg'], [], 0, datagram)",
        heard("hit mmsg"),
    ),
    "listen": Attack("socket.create_server(('127.0.0.1', 0)); say('LISTENING')", said("LISTENING")),
    "listen on an abstract name": Attack(
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0' + marker); s.listen(); say('LISTENING')", said("LISTENING")
    ),
    "open a netlink socket": Attack("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); say('OPEN')", said("OPEN")),
    "open a vsock socket": Attack("socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); say('OPEN')", said("OPEN")),
    "open a packet socket": Attack("socket.socket(socket.AF_PACKET, socket.SOCK_RAW); say('OPEN')", said("OPEN"),
                                   bare="root"),
    "open a raw socket": Attack("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); say('OPEN')", said("OPEN"),
                                bare="root"),
    "read the table of connections": Attack("say('LINES', len(open('/proc/net/tcp').readlines()))", said("LINES")),
    "read interfaces": Attack("say('LISTED', os.listdir('/sys/class/net'))", said("LISTED")),
    "resolve a name": Attack("say('FILE', len(open('/etc/resolv.conf').read()))", said("FILE")),
}  # fmt: skip
