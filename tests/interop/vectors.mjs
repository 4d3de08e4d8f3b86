// Whether wire.mjs reproduces protocols/vectors: prints what it does not.

import { readFileSync } from 'node:fs'
import { Float, decode, encode, hex, open, seal } from './wire.mjs'

const load = name => JSON.parse(readFileSync(new URL(`../../protocols/vectors/${name}.json`, import.meta.url)))
const bytes = text => Buffer.from(text, 'hex')
const wrong = []
const expect = (what, fine) => { if (!fine) wrong.push(what) }
const refuses = (work, text) => { try { work(bytes(text)); return false } catch { return true } }

const { accept, reject } = load('canonical')
for (const one of accept) expect(one.hex, hex(encode(decode(bytes(one.hex)))) === one.hex)
for (const one of reject) expect(one.why, refuses(decode, one.hex))
expect('a float is no integer', hex(encode(decode(bytes('cb0000000000000000')))) === 'cb0000000000000000' && decode(bytes('cb0000000000000000')) instanceof Float)

const records = load('records')
for (const one of records.records) {
  const { record, id } = open(bytes(one.hex))
  expect(`id of ${one.hex.slice(0, 16)}`, hex(id) === one.id)
  expect(`signature of ${one.hex.slice(0, 16)}`, hex(seal(record, bytes(records.seed))) === one.hex)
}
const ENVELOPE = [
  'another version', 'an unknown field', 'an unknown kind', 'number 0', 'a first record with a predecessor',
  'a second record without one', 'the domain of notices', 'another author'
]
for (const why of ENVELOPE) expect(why, refuses(open, records.reject.find(one => one.why === why).hex))
console.log(JSON.stringify({ accepted: accept.length, refused: reject.length, records: records.records.length, wrong }))
