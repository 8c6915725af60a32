// A C2SP tlog-witness (add-checkpoint) that shares no code with ours: golang.org/x/mod's sumdb/note
// and sumdb/tlog check the log, and crypto/ed25519 cosigns.
//
// usage: witness NAME LOG_VKEY...      (a log's key may be added later: POST its vkey to /add-log)
//
// Prints its verifier key and its URL, each on a line, and serves on loopback until it is killed.
// What it saw lives in memory. GET /checkpoint/SIZE tells what it cosigned of that size.
package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type log struct {
	verifier note.Verifier
	tree     tlog.Tree
}

type witness struct {
	lock sync.Mutex
	name string
	id   []byte
	key  ed25519.PrivateKey
	logs map[string]*log
	seen map[string]string // the notes by size
}

func (w *witness) addLog(vkey string) error {
	verifier, err := note.NewVerifier(vkey)
	if err == nil {
		w.logs[verifier.Name()] = &log{verifier: verifier}
	}
	return err
}

func (w *witness) cosign(text string) string {
	now := time.Now().Unix()
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", now, text)
	payload := binary.BigEndian.AppendUint64(append([]byte{}, w.id...), uint64(now))
	payload = append(payload, ed25519.Sign(w.key, []byte(message))...)
	return fmt.Sprintf("\u2014 %s %s\n", w.name, base64.StdEncoding.EncodeToString(payload))
}

// parse reads "old SIZE", proof lines and an empty line; the rest is the note.
func parse(body string) (old int64, proof tlog.TreeProof, text string, err error) {
	head, text, found := strings.Cut(body, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || !strings.HasPrefix(lines[0], "old ") || len(lines) > 64 {
		return 0, nil, "", fmt.Errorf("no add-checkpoint request")
	}
	old, err = strconv.ParseInt(lines[0][4:], 10, 64)
	if err != nil || strconv.FormatInt(old, 10) != lines[0][4:] || old < 0 {
		return 0, nil, "", fmt.Errorf("old size")
	}
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, nil, "", err
		}
		proof = append(proof, hash)
	}
	return old, proof, text, nil
}

func (w *witness) addCheckpoint(out http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(io.LimitReader(request.Body, 1<<16))
	if err != nil || request.Method != "POST" {
		http.Error(out, "POST a request", 400)
		return
	}
	old, proof, text, err := parse(string(body))
	if err != nil {
		http.Error(out, err.Error(), 400)
		return
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	origin, _, _ := strings.Cut(text, "\n")
	log := w.logs[origin]
	if log == nil {
		http.Error(out, "unknown log", 404)
		return
	}
	signed, err := note.Open([]byte(text), note.VerifierList(log.verifier))
	if err != nil {
		http.Error(out, err.Error(), 403)
		return
	}
	lines := strings.Split(signed.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := tlog.ParseHash(lines[2])
	if err != nil || err2 != nil || old > size {
		http.Error(out, "sizes", 400)
		return
	}
	if old != log.tree.N {
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(409)
		fmt.Fprintf(out, "%d\n", log.tree.N)
		return
	}
	switch {
	case old == 0 && len(proof) != 0:
		err = fmt.Errorf("a proof from nothing")
	case old == size && old != 0 && (len(proof) != 0 || root != log.tree.Hash):
		err = fmt.Errorf("another root of %d entries", size)
	case old != 0 && old != size:
		err = tlog.CheckTree(proof, size, root, old, log.tree.Hash)
	}
	if err != nil {
		http.Error(out, err.Error(), 422)
		return
	}
	log.tree = tlog.Tree{N: size, Hash: root}
	w.seen[lines[1]] = text
	io.WriteString(out, w.cosign(signed.Text))
}

func main() {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil || len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: witness NAME LOG_VKEY...")
		os.Exit(2)
	}
	typed := append([]byte{4}, public...)
	sum := sha256.Sum256(append([]byte(os.Args[1]+"\n"), typed...))
	w := &witness{name: os.Args[1], id: sum[:4], key: private, logs: map[string]*log{},
		seen: map[string]string{}}
	for _, vkey := range os.Args[2:] {
		if err := w.addLog(vkey); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	http.HandleFunc("/add-checkpoint", w.addCheckpoint)
	http.HandleFunc("/add-log", func(out http.ResponseWriter, request *http.Request) {
		vkey, _ := io.ReadAll(io.LimitReader(request.Body, 1000))
		w.lock.Lock()
		defer w.lock.Unlock()
		if err := w.addLog(strings.TrimSpace(string(vkey))); err != nil {
			http.Error(out, err.Error(), 400)
		}
	})
	http.HandleFunc("/checkpoint/", func(out http.ResponseWriter, request *http.Request) {
		w.lock.Lock()
		defer w.lock.Unlock()
		text, ok := w.seen[strings.TrimPrefix(request.URL.Path, "/checkpoint/")]
		if !ok {
			http.NotFound(out, request)
			return
		}
		io.WriteString(out, text)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%s+%08x+%s\nhttp://%s\n", w.name, binary.BigEndian.Uint32(w.id),
		base64.StdEncoding.EncodeToString(typed), listener.Addr())
	http.Serve(listener, nil)
}
