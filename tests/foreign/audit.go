// A reader of our log that shares no code with us: golang.org/x/mod's sumdb/note and sumdb/tlog do
// the signatures and the trees; only C2SP's paths and bundles, which differ from the checksum
// database's, are spelled here.
//
// usage: audit VKEY SOURCE [CHECKPOINTS] [WITNESS_VKEY...]
//
// SOURCE is a ledger's directory or URL, CHECKPOINTS a directory of older signed checkpoints ("-":
// none). Verifies the newest checkpoint's signature (and one cosignature of each witness named),
// every tile under it, the inclusion of every entry by a proof, and consistency by a proof between
// every two successive checkpoints.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "audit: "+format+"\n", args...)
	os.Exit(1)
}

type source struct{ base string }

func (s source) read(path string) ([]byte, error) {
	if !strings.HasPrefix(s.base, "http") {
		return os.ReadFile(filepath.Join(s.base, path))
	}
	answer, err := http.Get(strings.TrimSuffix(s.base, "/") + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	wanted := "application/octet-stream"
	if path == "checkpoint" {
		wanted = "text/plain; charset=utf-8"
	}
	if got := answer.Header.Get("Content-Type"); got != wanted {
		return nil, fmt.Errorf("%s: Content-Type %q, not %q", path, got, wanted)
	}
	long := strings.Contains(answer.Header.Get("Cache-Control"), "immutable")
	if long != (path != "checkpoint") {
		return nil, fmt.Errorf("%s: Cache-Control %q", path, answer.Header.Get("Cache-Control"))
	}
	return io.ReadAll(answer.Body)
}

// c2spPath maps a tile to tlog-tiles: tile/<L>/<N>[.p/<W>]. L is "entries" for bundles.
func c2spPath(level string, n int64, width int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width < 1<<height {
		path += fmt.Sprintf(".p/%d", width)
	}
	return "tile/" + level + "/" + path
}

// tiles is a tlog.TileReader over the source.
type tiles struct {
	source source
	kept   map[tlog.Tile][]byte
}

func (t *tiles) Height() int                     { return height }
func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t *tiles) ReadTiles(all []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range all {
		data, ok := t.kept[tile]
		if !ok {
			var err error
			data, err = t.source.read(c2spPath(strconv.Itoa(tile.L), tile.N, tile.W))
			if err != nil {
				return nil, err
			}
			t.kept[tile] = data
		}
		out = append(out, data)
	}
	return out, nil
}

// hashes keeps what the authenticating reader gave, a tile's worth at a time: a proof for each entry
// would otherwise hash each tile as often as it has entries.
type hashes struct {
	reader tlog.HashReader
	size   int64
	known  map[int64]tlog.Hash
}

func (h *hashes) load(index int64) error {
	level, n := tlog.SplitStoredHashIndex(index)
	row := level / height * height
	first := n << uint(level-row) >> height << height // of the tile's lowest row
	var wanted []int64
	for up := 0; up < height; up++ {
		for i := first >> uint(up); i < (first+1<<height)>>uint(up); i++ {
			if (i+1)<<uint(row+up) <= h.size {
				wanted = append(wanted, tlog.StoredHashIndex(row+up, i))
			}
		}
	}
	got, err := h.reader.ReadHashes(wanted)
	if err != nil {
		return err
	}
	for i, at := range wanted {
		h.known[at] = got[i]
	}
	return nil
}

func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, index := range indexes {
		if _, ok := h.known[index]; !ok {
			if err := h.load(index); err != nil {
				return nil, err
			}
		}
		hash, ok := h.known[index]
		if !ok {
			return nil, fmt.Errorf("no hash %d", index)
		}
		out = append(out, hash)
	}
	return out, nil
}

// cosigner verifies C2SP cosignature/v1 lines, which x/mod does not know: type 4, and a signature
// over a header with the time and the whole note text.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) cosigner {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		fail("%q is no verifier key", vkey)
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		fail("%q is no cosignature/v1 key", vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	hash := binary.BigEndian.Uint32(sum[:])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		fail("the key id of %q should be %08x", vkey, hash)
	}
	return cosigner{parts[0], hash, ed25519.PublicKey(key[1:])}
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+64 {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(signature), text)
	return ed25519.Verify(c.key, []byte(signed), signature[8:])
}

func open(text []byte, verifiers []note.Verifier, all bool) tlog.Tree {
	signed, err := note.Open(text, note.VerifierList(verifiers...))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	if all && len(signed.Sigs) != len(verifiers) {
		fail("checkpoint: %d of %d keys signed it", len(signed.Sigs), len(verifiers))
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != verifiers[0].Name() {
		fail("checkpoint: not three lines of the log %s", verifiers[0].Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] {
		fail("checkpoint: size %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		fail("checkpoint: root %q", lines[2])
	}
	return tlog.Tree{N: size, Hash: root}
}

func checkEntries(from source, tree tlog.Tree, reader tlog.HashReader) {
	for bundle := int64(0); bundle<<height < tree.N; bundle++ {
		width := 1 << height
		if tree.N-bundle<<height < 1<<height {
			width = int(tree.N - bundle<<height)
		}
		data, err := from.read(c2spPath("entries", bundle, width))
		if err != nil {
			fail("%v", err)
		}
		for i := 0; i < width; i++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				fail("bundle %d ends within entry %d", bundle, i)
			}
			length := int(binary.BigEndian.Uint16(data))
			leaf := tlog.RecordHash(data[2 : 2+length])
			data = data[2+length:]
			index := bundle<<height + int64(i)
			proof, err := tlog.ProveRecord(tree.N, index, reader)
			if err != nil {
				fail("entry %d: %v", index, err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				fail("entry %d: %v", index, err)
			}
		}
		if len(data) != 0 {
			fail("bundle %d goes on after its %d entries", bundle, width)
		}
	}
}

func checkConsistency(trees []tlog.Tree, reader tlog.HashReader) int {
	pairs := 0
	for i := 1; i < len(trees); i++ {
		older, newer := trees[i-1], trees[i]
		if older.N == newer.N && older.Hash != newer.Hash {
			fail("two roots of %d entries", older.N)
		}
		if older.N == newer.N || older.N == 0 {
			continue
		}
		proof, err := tlog.ProveTree(newer.N, older.N, reader)
		if err != nil {
			fail("from %d to %d: %v", older.N, newer.N, err)
		}
		if err := tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash); err != nil {
			fail("from %d to %d: %v", older.N, newer.N, err)
		}
		pairs++
	}
	return pairs
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: audit VKEY SOURCE [CHECKPOINTS|- [WITNESS_VKEY...]]")
	}
	verifier, err := note.NewVerifier(os.Args[1])
	if err != nil {
		fail("%q: %v", os.Args[1], err)
	}
	verifiers := []note.Verifier{verifier}
	from := source{os.Args[2]}
	var older []tlog.Tree
	if len(os.Args) > 3 && os.Args[3] != "-" {
		names, err := filepath.Glob(filepath.Join(os.Args[3], "[0-9]*"))
		if err != nil || len(names) == 0 {
			fail("no checkpoints in %s", os.Args[3])
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				fail("%v", err)
			}
			older = append(older, open(text, verifiers, false))
		}
	}
	if len(os.Args) > 4 {
		for _, vkey := range os.Args[4:] {
			verifiers = append(verifiers, newCosigner(vkey))
		}
	}
	text, err := from.read("checkpoint")
	if err != nil {
		fail("%v", err)
	}
	tree := open(text, verifiers, true)
	trees := append(older, tree)
	sort.Slice(trees, func(i, j int) bool { return trees[i].N < trees[j].N })
	if trees[len(trees)-1].N != tree.N {
		fail("an older checkpoint covers %d entries, the newest %d", trees[len(trees)-1].N, tree.N)
	}
	authentic := tlog.TileHashReader(tree, &tiles{from, map[tlog.Tile][]byte{}})
	reader := &hashes{authentic, tree.N, map[int64]tlog.Hash{}}
	checkEntries(from, tree, reader)
	pairs := checkConsistency(trees, reader)
	fmt.Printf("%d entries included, %d pairs of checkpoints consistent, %d cosignatures\n", tree.N,
		pairs, len(verifiers)-1)
}
