-- For nginx: makes the token of the contract with OpenSSL, to which nginx is linked.
local ffi = require "ffi"
local base64 = require "ngx.base64"

ffi.cdef [[
const void *EVP_sha512(void);
unsigned char *HMAC(const void *hash, const void *key, int size, const char *data, size_t length,
                    unsigned char *mac, unsigned int *mac_size);
int RAND_bytes(unsigned char *bytes, int count);
]]

local key = os.getenv("JWT_SHARED_SECRET"):gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
local head = base64.encode_base64url('{"alg":"HS512","typ":"JWT"}') .. "."
local mac, random = ffi.new("unsigned char[64]"), ffi.new("unsigned char[16]")

local function hexadecimal(bytes)
   return (bytes:gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
end

return function()
   ffi.C.RAND_bytes(random, 16)
   local claims = string.format(
      '{"iat":%d,"jti":"%s","payload":{"user":"username","date":"%s"}}',
      ngx.time(), hexadecimal(ffi.string(random, 16)), os.date("!%Y-%m-%d", ngx.time()))
   local signed = head .. base64.encode_base64url(claims)
   ffi.C.HMAC(ffi.C.EVP_sha512(), key, #key, signed, #signed, mac, nil)
   return signed .. "." .. base64.encode_base64url(ffi.string(mac, 64))
end
