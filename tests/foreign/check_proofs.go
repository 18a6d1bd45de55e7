// Checks proofs of logd with the packages of Go's checksum database, and with nothing of logd.
//
//	check_proofs VKEY     for each line "FILE" or "FILE OLD-HEAD-FILE": prints "ok" or "no: why"
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(good bool, why string) {
	if !good {
		panic(why)
	}
}

func number(line, name string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(line, name), 10, 64)
	must(err == nil && n >= 0 && line == name+fmt.Sprint(n), "not a number after "+name)
	return n
}

func hash(text string) tlog.Hash {
	h, err := tlog.ParseHash(text)
	must(err == nil && h.String() == text, "not a hash") // Go reads other forms of base64 too
	return h
}

func decoded(text string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	must(err == nil && base64.StdEncoding.EncodeToString(data) == text, "another form of base64")
	return data
}

func hashes(lines []string) (list []tlog.Hash) {
	for _, line := range lines {
		list = append(list, hash(line))
	}
	return
}

// head opens a signed checkpoint: its size and root.
func head(text, vkey string) (int64, tlog.Hash) {
	key, err := note.NewVerifier(vkey)
	must(err == nil, "not a key")
	opened, err := note.Open([]byte(text), note.VerifierList(key))
	must(err == nil, fmt.Sprint(err))
	again := opened.Text + "\n"
	for _, sig := range append(opened.Sigs, opened.UnverifiedSigs...) {
		decoded(sig.Base64)
		again += "— " + sig.Name + " " + sig.Base64 + "\n"
	}
	must(again == text, "another form of a note")
	lines := strings.Split(opened.Text, "\n")
	must(len(lines) == 4 && lines[0] == key.Name(), "not a checkpoint of that trail")
	return number(lines[1], ""), hash(lines[2])
}

func event(text, vkey string) {
	part := strings.SplitN(text, "\n\n", 4)
	must(len(part) == 4, "not four parts")
	first, batch := strings.Split(part[0], "\n"), strings.Split(part[2], "\n")
	must(len(first) > 2 && first[0] == "logd/event-proof@v1" && strings.HasPrefix(first[1], "event "), "not a proof")
	must(len(batch) > 1 && batch[0] == "c2sp.org/tlog-proof@v1", "not a proof")
	data := decoded(first[1][6:])
	entry := strings.Split(part[1], "\n")
	must(len(entry) == 4, "not a batch")
	numbers := strings.Split(entry[1], " ")
	must(len(numbers) == 4, "not a batch")
	place, events, leaves := number(first[2], "index "), number(numbers[3], ""), hashes(first[3:])
	if entry[0] == "logd/chained-batch@v1" {
		var all []byte
		for _, leaf := range leaves {
			all = append(all, leaf[:]...)
		}
		must(place < events && int64(len(leaves)) == events && leaves[place] == sha256.Sum256(data), "not in its batch")
		must(sha256.Sum256(all) == hash(entry[2]), "not in its batch")
	} else {
		must(tlog.CheckRecord(leaves, events, hash(entry[2]), place, tlog.RecordHash(data)) == nil, "not in its batch")
	}
	size, root := head(part[3], vkey)
	at := number(batch[1], "index ")
	must(tlog.CheckRecord(hashes(batch[2:]), size, root, at, tlog.RecordHash([]byte(part[1]+"\n"))) == nil, "not in the trail")
}

func growth(text, old, vkey string) {
	first, last, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(first, "\n")
	oldSize, oldRoot := head(old, vkey)
	size, root := head(last, vkey)
	must(number(lines[0], "old ") == oldSize, "from another head")
	must(tlog.CheckTree(hashes(lines[1:]), size, root, oldSize, oldRoot) == nil, "not grown")
}

func check(files []string, vkey string) (answer string) {
	defer func() {
		if why := recover(); why != nil {
			answer = fmt.Sprint("no: ", why)
		}
	}()
	var texts []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(err == nil, "cannot be read")
		texts = append(texts, string(text))
	}
	if len(texts) == 1 {
		event(texts[0], vkey)
	} else {
		growth(texts[0], texts[1], vkey)
	}
	return "ok"
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(check(strings.Fields(lines.Text()), os.Args[1]))
	}
}
