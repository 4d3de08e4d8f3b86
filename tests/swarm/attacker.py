"""An attacker: a stock py-libp2p host that speaks the real protocols, and what it says."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.utils import encode_varint_prefixed
from swarm_node.protocols import topics
from swarm_node.protocols.records import Record, sign_record

TASK = b"t" * 32
RESULTS = topics.results(TASK).name
SEED = b"evil" * 8
KEYS = create_new_key_pair(SEED)
GOSSIP = TProtocol("/meshsub/1.1.0")

Attack = Callable[[Any, Any], Awaitable[None]]


def attack(
    address: str,
    what: Attack,
    *,
    plaintext: bool = False,
    deaf: bool = False,
    handlers: dict[str, Any] | None = None,
    seed: bytes = SEED,
    seconds: float = 20.0,
) -> None:
    """Connect to `address` as a stock host and run `what(host, peer)`. Blocks: call it in a thread. A `deaf` one lets
    nobody open a gossip stream to it."""
    keys = create_new_key_pair(seed)

    async def main() -> None:
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        security: Any = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)} if plaintext else {NOISE: noise}
        host = new_host(key_pair=keys, sec_opt=security)

        async def ignore(stream: Any) -> None:
            await trio.sleep_forever()

        if not deaf:
            host.set_stream_handler(GOSSIP, ignore)
        for protocol, handler in (handlers or {}).items():
            host.set_stream_handler(TProtocol(protocol), handler)
        with trio.fail_after(seconds):
            async with host.run(listen_addrs=[]):
                info = info_from_p2p_addr(multiaddr.Multiaddr(address))
                try:
                    await host.connect(info)
                    await what(host, info.peer_id)
                finally:
                    with trio.CancelScope(shield=True):
                        await host.close()

    trio.run(main)


def message(data: bytes, *, topic: str = RESULTS, keys: Any = KEYS, seqno: bytes | None = None, **changes: Any) -> Any:
    """A correctly signed gossip message, then changed."""
    number = seqno if seqno is not None else random.getrandbits(63).to_bytes(8, "big")
    out = rpc_pb2.Message(data=data, topicIDs=[topic], from_id=ID.from_pubkey(keys.public_key).to_bytes(), seqno=number)
    out.signature = keys.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + out.SerializeToString())
    out.key = keys.public_key.serialize()
    for name, value in changes.items():
        setattr(out, name, value)
    return out


def saying(*messages: Any) -> Attack:
    """Send these messages, each in a frame of its own, over one gossip stream."""
    return writing(*(rpc_pb2.RPC(publish=[one]).SerializeToString() for one in messages))


def controlling(*messages: rpc_pb2.ControlMessage) -> tuple[bytes, ...]:
    """Frames with one of these control messages each."""
    return tuple(rpc_pb2.RPC(control=one).SerializeToString() for one in messages)


def writing(*frames: bytes, protocol: str = GOSSIP, linger: float = 0.3) -> Attack:
    """Send these bytes as varint-prefixed frames over one stream."""

    async def send(host: Any, peer: Any) -> None:
        stream = await host.new_stream(peer, [TProtocol(protocol)])
        with contextlib.suppress(Exception):  # the stream may be reset in the middle
            for frame in frames:
                await stream.write(encode_varint_prefixed(frame))
        await trio.sleep(linger)

    return send


def invalid(node: Any) -> dict[str, int]:
    return dict(node.network.statistics().invalid)


def record(seed: bytes, body: Any, **fields: Any) -> Record:
    values: dict[str, Any] = {"epoch": 0, "seq": 1, "prev": None, "time": 1} | fields
    return sign_record(seed, body=body, **values)
