// Checks a log with Go's own library for transparency logs, golang.org/x/mod/sumdb/tlog and note:
//
//	check KEY FOLDER [OLD_CHECKPOINT] < leaves    the checkpoint, every tile, the leaves, and that the log begins with the old one
//	check KEY PROOF                               a row's proof (https://c2sp.org/tlog-proof)
//
// A line of leaves is an index, a space, and the leaf as it is hashed. What does not fit is said, with exit code 1.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// folder is a log's folder as tlog-tiles lays it out: Go's own paths have the height 8 before the level.
type folder string

func (f folder) Height() int                     { return 8 }
func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(f), "tile", strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

// open reads a signed checkpoint: a log's name, its size and its root, a line each.
func open(key string, signed []byte) tlog.Tree {
	verifier, err := note.NewVerifier(key)
	check(err)
	opened, err := note.Open(signed, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		log.Fatalf("this is no checkpoint of the log %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

func checkProof(key string, text []byte) {
	head, signed, _ := strings.Cut(string(text), "\n\n")
	tree, lines := open(key, []byte(signed)), strings.Split(head, "\n")
	leaf, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	check(err)
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	check(err)
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		check(err)
		proof = append(proof, hash)
	}
	check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf)))
	fmt.Printf("leaf %d of %d: %s\n", index, tree.N, leaf)
}

func main() {
	log.SetFlags(0)
	key, path := os.Args[1], os.Args[2]
	if text, err := os.ReadFile(path); err == nil {
		checkProof(key, text)
		return
	}
	signed, err := os.ReadFile(filepath.Join(path, "checkpoint"))
	check(err)
	tree := open(key, signed)
	hashes := tlog.TileHashReader(tree, folder(path))
	included := func(index int64, leaf tlog.Hash) {
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf))
	}
	for n := int64(0); n < tree.N; n += 256 { // a proof of one leaf has the hashes of all others of its tile in it
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
		check(err)
		included(n, leaf[0])
	}
	if len(os.Args) > 3 {
		signed, err := os.ReadFile(os.Args[3])
		check(err)
		old := open(key, signed)
		proof, err := tlog.ProveTree(tree.N, old.N, hashes)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
	}
	leaves := bufio.NewScanner(os.Stdin)
	leaves.Buffer(nil, 1<<24)
	for leaves.Scan() {
		number, leaf, _ := bytes.Cut(leaves.Bytes(), []byte(" "))
		index, err := strconv.ParseInt(string(number), 10, 64)
		check(err)
		included(index, tlog.RecordHash(leaf))
	}
	check(leaves.Err())
	fmt.Printf("%d leaves\n", tree.N)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
