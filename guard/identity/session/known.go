package session

import (
	"sync"

	"github.com/moat-gateway/moat/guard/identity"
)

const (
	// halfKnown and halfBytes bound a half of what is kept open: entries, and bytes of claims.
	halfKnown, halfBytes = 2048, 2 << 20
)

// known keeps the principals of the sessions that were used last, so that not every request
// opens and reads its session: at most 4,096, of 4 MiB of claims. They are found by what the
// Store has returned, so a session that has been ended or changed there is not found here.
type known struct {
	mu         sync.Mutex
	young, old map[version]*opened
	bytes      int // of young
}

// version is one content of a session: its ID, and the nonce and tag that it is sealed with. Who
// writes to the Store and leaves those as they were gets what was sealed so.
type version struct {
	id    ID
	nonce [12]byte
	tag   [16]byte
}

// opened is what a content of a session says.
type opened struct {
	principal *identity.Principal
	began     int64
	bytes     int
}

func versionOf(e *Entry) version {
	v := version{id: e.ID}
	copy(v.nonce[:], e.Sealed)
	copy(v.tag[:], e.Sealed[max(0, len(e.Sealed)-len(v.tag)):])
	return v
}

func (k *known) find(v version) *opened {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.young[v]
	if o == nil {
		if o = k.old[v]; o != nil {
			k.put(v, o)
		}
	}
	return o
}

func (k *known) add(v version, o *opened) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(v, o)
}

// put is called with mu held. What was not used since the other half was full is forgotten.
func (k *known) put(v version, o *opened) {
	if k.young == nil || len(k.young) >= halfKnown || k.bytes+o.bytes > halfBytes {
		k.old, k.young, k.bytes = k.young, make(map[version]*opened), 0
	}
	k.young[v] = o
	k.bytes += o.bytes
}
