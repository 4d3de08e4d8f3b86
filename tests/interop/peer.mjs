// A peer on js-libp2p: joins a task's results, checks what it hears, and publishes results of its own.
// Usage: node peer.mjs SEED_HEX TASK_HEX MULTIADDR. Lines in: a title to publish. Lines out: JSON.

import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { Float, compare, digest, encode, hex, open, seal } from './wire.mjs'

Promise.withResolvers ??= function () { // Node.js 20 has none
  const out = {}
  out.promise = new this((resolve, reject) => Object.assign(out, { resolve, reject }))
  return out
}

const [seed, task] = process.argv.slice(2, 4).map(text => Buffer.from(text, 'hex'))
const address = multiaddr(process.argv[4])
const topic = `swarm-node/1/${hex(task)}/results`
const say = words => console.log(JSON.stringify(words))

const privateKey = await generateKeyPairFromSeed('Ed25519', seed)
const author = privateKey.publicKey.raw
const node = await createLibp2p({
  privateKey,
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub({ globalSignaturePolicy: 'StrictSign', fallbackToFloodsub: false }) }
})
const { pubsub } = node.services

pubsub.addEventListener('gossipsub:message', ({ detail }) => {
  if (detail.msg.topic !== topic) return
  try {
    const { record, id } = open(detail.msg.data)
    if (compare(detail.msg.from.publicKey.raw, record.author) !== 0) throw new Error('published by somebody else')
    say({ heard: hex(id), author: hex(record.author), kind: record.kind, title: record.body.title })
  } catch (error) {
    say({ refused: error.message })
  }
})
pubsub.addEventListener('gossipsub:graft', ({ detail }) => { if (detail.topic === topic) say({ meshed: detail.peerId.toString() }) })
pubsub.subscribe(topic)
await node.dial(address)
say({ peer: node.peerId.toString(), author: hex(author) })

const epoch = Math.floor(Date.now() / 1000)
let [seq, prev] = [0, null]
for await (const title of createInterface({ input: process.stdin })) {
  const program = digest(encode({ files: { 'train.py': `# ${title}\n` } }))
  const body = {
    task, program, parent: digest(Buffer.from('a parent')), anchor: null, normal: digest(Buffer.from(title)), diff: null,
    outcome: 'discarded', aim: 'gain', title, reason: '', cause: '', tags: [], proposer: 'js', inspired_by: [],
    score: new Float(3), parent_score: new Float(2.5), gain: new Float(-0.5), gain_error: null, noise: null,
    evidence: null, steps: 25, cost_ratio: new Float(1), runs: [],
    environment: { hardware: 'cpu', device: 'js', system: process.platform, python: '', library: `node ${process.version}` },
    cost: { seconds: new Float(0), tokens_in: 0, tokens_out: 0, dollars: new Float(0) }
  }
  const sealed = seal({ v: 1, author, epoch, seq: ++seq, prev, time: Date.now(), kind: 'result', body }, seed)
  prev = open(sealed).id
  await pubsub.publish(topic, sealed)
  say({ published: hex(prev) })
}
await node.stop()
