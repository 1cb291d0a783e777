{
  "format": 1,
  "algorithm": "Ed25519",
  "key": "0138a289bec35bc6924aedb37921d9b26be59f97ea9856e52f05b950d260392e",
  "signature": "aa19800f3d070a86ac7163556dc2f5fe719dcc85af52a6fc20c30556cc315f64c8b2e8ce6d5bf4924c010fdcdbfc630bb70cff85c762aa33f2d3e0a777fcdd0b"
}
