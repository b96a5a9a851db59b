// Package token says who may call the runtime.
//
// A tokens file is YAML and holds no secret, only their SHA-256 hashes:
//
//	tokens:
//	  - name: web
//	    hash: 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
//	    namespaces: [default, shop]
//	    access: write
//	    rate: 1000
//	    burst: 2000
//
// namespaces may be ["*"], every one. access is read or write; write includes
// reading. rate is calls per second, with burst allowed at once; no rate, no limit.
// An entry without a hash can be used only by a client whose certificate carries
// its name as the subject's common name; any entry may be used that way too.
package token
