// Verifies tokens with jose. Reads {algorithm, tokens: {name: token}, and url (of a JWKS) or secret (hex)} as JSON
// from standard input; writes {results: {name: the protected header, or jose's error code}, thumbprints: of the JWKS}.
import { readFileSync } from 'node:fs'
import { calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } from 'jose'

const { algorithm, tokens, url, secret } = JSON.parse(readFileSync(0, 'utf8'))
const key = url ? createRemoteJWKSet(new URL(url)) : Buffer.from(secret, 'hex')

async function verify(token) {
  try {
    const { protectedHeader } = await jwtVerify(token, key, { algorithms: [algorithm] })
    return protectedHeader
  } catch (error) {
    return error.code ?? String(error)
  }
}

const results = {}
for (const [name, token] of Object.entries(tokens)) results[name] = await verify(token)
const keys = url ? (await (await fetch(url)).json()).keys : []
const thumbprints = await Promise.all(keys.map((jwk) => calculateJwkThumbprint(jwk)))
console.log(JSON.stringify({ results, thumbprints }))
