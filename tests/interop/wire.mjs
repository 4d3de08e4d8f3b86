// The encoding and the records of protocols/SPEC.md, sections 1 and 3, written from that text.

import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { blake2b } from '@noble/hashes/blake2.js'

export class Float {
  constructor (value) { this.value = value } // a number in JavaScript does not say whether it is one
}

export const digest = bytes => blake2b(bytes, { dkLen: 32 })
export const hex = bytes => Buffer.from(bytes).toString('hex')
export const compare = (one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other))

function head (size, fixed, ...wider) { // wider: [tag, bytes] from the narrowest on
  if (fixed !== undefined && size < fixed[1]) return Buffer.from([fixed[0] | size])
  for (const [tag, width] of wider) {
    if (size < 2 ** (8 * width)) {
      const out = Buffer.alloc(1 + width)
      out[0] = tag
      out.writeUIntBE(size, 1, width)
      return out
    }
  }
  throw new Error('too long')
}

function integer (value) {
  const big = BigInt(value)
  if (big >= 0n) {
    if (big < 128n) return Buffer.from([Number(big)])
    for (const [tag, bits] of [[0xcc, 8], [0xcd, 16], [0xce, 32], [0xcf, 64]]) {
      if (big < 1n << BigInt(bits)) return Buffer.from(tag.toString(16) + big.toString(16).padStart(bits / 4, '0'), 'hex')
    }
  }
  if (big >= -32n) return Buffer.from([Number(big) + 256])
  for (const [tag, bits] of [[0xd0, 8], [0xd1, 16], [0xd2, 32], [0xd3, 64]]) {
    if (big >= -(1n << BigInt(bits - 1))) {
      return Buffer.from(tag.toString(16) + BigInt.asUintN(bits, big).toString(16).padStart(bits / 4, '0'), 'hex')
    }
  }
  throw new Error('integer of more than 64 bits')
}

export function encode (value) {
  if (value === null) return Buffer.from([0xc0])
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2])
  if (typeof value === 'number' || typeof value === 'bigint') return integer(value)
  if (value instanceof Float) {
    if (!Number.isFinite(value.value)) throw new Error('not finite')
    const out = Buffer.alloc(9)
    out[0] = 0xcb
    out.writeDoubleBE(value.value, 1)
    return out
  }
  if (typeof value === 'string') {
    const bytes = Buffer.from(value)
    return Buffer.concat([head(bytes.length, [0xa0, 32], [0xd9, 1], [0xda, 2], [0xdb, 4]), bytes])
  }
  if (value instanceof Uint8Array) return Buffer.concat([head(value.length, undefined, [0xc4, 1], [0xc5, 2], [0xc6, 4]), value])
  if (Array.isArray(value)) return Buffer.concat([head(value.length, [0x90, 16], [0xdc, 2]), ...value.map(encode)])
  const keys = Object.keys(value).sort((one, other) => compare(Buffer.from(one), Buffer.from(other)))
  return Buffer.concat([head(keys.length, [0x80, 16], [0xde, 2]), ...keys.flatMap(key => [encode(key), encode(value[key])])])
}

// The value of these bytes; an error where they are not the one encoding that it has.
export function decode (bytes) {
  const data = Buffer.from(bytes)
  let at = 0
  const take = count => {
    if (at + count > data.length) throw new Error('truncated')
    return data.subarray(at, at += count)
  }
  const size = width => take(width).readUIntBE(0, width)
  const text = count => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(take(count))
  const number = (width, signed) => {
    const raw = BigInt('0x' + hex(take(width)))
    const value = signed ? BigInt.asIntN(8 * width, raw) : raw
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
  }
  function one (depth) {
    const list = count => {
      if (depth === 8 || count > 4096) throw new Error('too deep or too long')
      return Array.from({ length: count }, () => one(depth + 1))
    }
    const map = count => {
      if (depth === 8 || count > 4096) throw new Error('too deep or too long')
      const out = {}
      for (let left = count; left > 0; left--) {
        const key = one(depth + 1)
        if (typeof key !== 'string') throw new Error('a key that is not a string')
        Object.defineProperty(out, key, { value: one(depth + 1), enumerable: true, configurable: true })
      }
      return out
    }
    const tag = take(1)[0]
    if (tag < 0x80) return tag
    if (tag < 0x90) return map(tag & 15)
    if (tag < 0xa0) return list(tag & 15)
    if (tag < 0xc0) return text(tag & 31)
    if (tag >= 0xe0) return tag - 256
    switch (tag) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: case 0xc5: case 0xc6: return take(size(1 << (tag - 0xc4)))
      case 0xcb: return new Float(take(8).readDoubleBE(0))
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return number(1 << (tag - 0xcc), false)
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: return number(1 << (tag - 0xd0), true)
      case 0xd9: return text(size(1))
      case 0xda: return text(size(2))
      case 0xdb: return text(size(4))
      case 0xdc: return list(size(2))
      case 0xde: return map(size(2))
      default: throw new Error('not in this encoding')
    }
  }
  const value = one(0)
  if (at !== data.length || compare(encode(value), data) !== 0) throw new Error('not canonical')
  return value
}

const DOMAIN = Buffer.from('swarm-node/record/1\n')
const unsigned = record => encode(Object.fromEntries(Object.entries(record).filter(([key]) => key !== 'sig')))

// A record from the wire with its id; an error where it is not one, or not signed by its author. Of the body only the
// encoding is looked at.
export function open (bytes) {
  if (bytes.length > 65536) throw new Error('too large')
  const record = decode(bytes)
  const fields = ['author', 'body', 'epoch', 'kind', 'prev', 'seq', 'sig', 'time', 'v']
  if (Object.keys(record).join() !== fields.join() || record.v !== 1) throw new Error('not a record')
  if (!['result', 'verification'].includes(record.kind)) throw new Error('another kind')
  if (!(record.seq >= 1) || (record.seq === 1) !== (record.prev === null)) throw new Error('not a place in a log')
  const key = createPublicKey({ format: 'der', type: 'spki', key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), record.author]) })
  const said = unsigned(record)
  if (!verify(null, Buffer.concat([DOMAIN, said]), key, record.sig)) throw new Error('not signed by its author')
  return { record, id: digest(said) }
}

// A record with its signature, encoded. seed: 32 bytes of an Ed25519 key.
export function seal (record, seed) {
  const key = createPrivateKey({ format: 'der', type: 'pkcs8', key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]) })
  return encode({ ...record, sig: sign(null, Buffer.concat([DOMAIN, unsigned(record)]), key) })
}
