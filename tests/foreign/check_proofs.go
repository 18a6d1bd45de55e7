// Checks proofs of logd with the packages of Go's checksum database, and with nothing of logd.
//
//	check_proofs VKEY     for each line "FILE", "FILE OLD-HEAD-FILE", or "DIRECTORY" of an
//	                      evidence sheet: prints "ok" or "no: why"
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
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

// signed opens a note that the key has signed: the name of the key, and the lines.
func signed(text, vkey string) (string, []string) {
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
	return key.Name(), strings.Split(opened.Text, "\n")
}

// head opens a signed checkpoint: its size and root.
func head(text, vkey string) (int64, tlog.Hash) {
	name, lines := signed(text, vkey)
	must(len(lines) == 4 && lines[0] == name, "not a checkpoint of that trail")
	return number(lines[1], ""), hash(lines[2])
}

// event checks the proof of an event: its data, and the head.
func event(text, vkey string) ([]byte, string) {
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
	return data, part[3]
}

// root is the root of the tree over leaves, as in RFC 9162, 2.1.1.
func root(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	if len(leaves) == 1 {
		return leaves[0]
	}
	half := 1
	for half*2 < len(leaves) {
		half *= 2
	}
	return tlog.NodeHash(root(leaves[:half]), root(leaves[half:]))
}

// unpack reads one value of MessagePack, as JSON would have it, and what is left.
func unpack(data []byte) (value any, rest []byte) {
	take := func(n int) []byte {
		must(n <= len(data), "cut short")
		taken := data[:n]
		data = data[n:]
		return taken
	}
	uint := func(bytes int) uint64 {
		var eight [8]byte
		copy(eight[8-bytes:], take(bytes))
		return binary.BigEndian.Uint64(eight[:])
	}
	text := func(n int) any { return string(take(n)) }
	array := func(n int) any {
		list := []any{}
		for ; n > 0; n-- {
			var item any
			item, data = unpack(data)
			list = append(list, item)
		}
		return list
	}
	maps := func(n int) any {
		made := map[string]any{}
		for ; n > 0; n-- {
			var key, item any
			key, data = unpack(data)
			item, data = unpack(data)
			made[key.(string)] = item
		}
		return made
	}
	float := func(f float64) any {
		if math.IsNaN(f) {
			return "nan"
		} else if math.IsInf(f, 0) {
			return strings.TrimPrefix(strings.ToLower(fmt.Sprint(f)), "+")
		}
		return f
	}
	switch kind := int(take(1)[0]); {
	case kind < 0x80:
		value = json.Number(fmt.Sprint(kind))
	case kind < 0x90:
		value = maps(kind & 15)
	case kind < 0xa0:
		value = array(kind & 15)
	case kind < 0xc0:
		value = text(kind & 31)
	case kind == 0xc0:
		value = nil
	case kind == 0xc2 || kind == 0xc3:
		value = kind == 0xc3
	case kind >= 0xc4 && kind <= 0xc6:
		value = take(int(uint(1 << (kind - 0xc4))))
	case kind == 0xca:
		value = float(float64(math.Float32frombits(uint32(uint(4)))))
	case kind == 0xcb:
		value = float(math.Float64frombits(uint(8)))
	case kind >= 0xcc && kind <= 0xcf:
		value = json.Number(fmt.Sprint(uint(1 << (kind - 0xcc))))
	case kind >= 0xd0 && kind <= 0xd3:
		bytes := 1 << (kind - 0xd0)
		value = json.Number(fmt.Sprint(int64(uint(bytes)) << (64 - 8*bytes) >> (64 - 8*bytes)))
	case kind >= 0xd9 && kind <= 0xdb:
		value = text(int(uint(1 << (kind - 0xd9))))
	case kind == 0xdc || kind == 0xdd:
		value = array(int(uint(2 << (kind - 0xdc))))
	case kind == 0xde || kind == 0xdf:
		value = maps(int(uint(2 << (kind - 0xde))))
	case kind >= 0xe0:
		value = json.Number(fmt.Sprint(kind - 256))
	default:
		panic("not of this kind")
	}
	return value, data
}

// same compares a value of JSON with one of MessagePack.
func same(a, b any) bool {
	switch b := b.(type) {
	case float64:
		n, is := a.(json.Number)
		f, err := n.Float64()
		return is && err == nil && f == b
	case []any:
		list, is := a.([]any)
		if !is || len(list) != len(b) {
			return false
		}
		for i := range b {
			if !same(list[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		made, is := a.(map[string]any)
		if !is || len(made) != len(b) {
			return false
		}
		for key, item := range b {
			if other, there := made[key]; !there || !same(other, item) {
				return false
			}
		}
		return true
	}
	return a == b
}

type sheetEvent struct {
	ID                         int64
	Ts                         int64 `json:"ts_ns"`
	Sequence                   int64
	Producer, Type, User, Leaf string
	Proof, Data                *string
	Props                      any
}

// sheet checks an evidence sheet, an unpacked download, as its README says.
func sheet(folder, vkey string) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(folder, name))
		must(err == nil, name+" cannot be read")
		return string(text)
	}
	headText := read("head.txt")
	size, trail := head(headText, vkey)
	name, lines := signed(read("statement.txt"), vkey)
	must(len(lines) == 12 && lines[0] == "logd/evidence@v1" && lines[11] == "", "not a statement")
	said := map[string]string{}
	for _, line := range lines[1:11] {
		key, value, _ := strings.Cut(line, " ")
		said[key] = value
	}
	must(said["trail"] == name && said["head"] == fmt.Sprintf("%d %v", size, trail), "of another head")
	var found struct {
		Caveats []string
		Events  []sheetEvent
	}
	decoder := json.NewDecoder(strings.NewReader(read("sheet.json")))
	decoder.UseNumber()
	must(decoder.Decode(&found) == nil, "not a sheet")
	var user string
	must(json.Unmarshal([]byte(said["user"]), &user) == nil, "whose?")
	since, until := int64(0), int64(math.MaxInt64)
	if said["since"] != "-" {
		since = number(said["since"], "")
	}
	if said["until"] != "-" {
		until = number(said["until"], "")
	}
	var leaves, caveats []tlog.Hash
	last, proofs := int64(0), 0
	for _, one := range found.Events {
		var data []byte
		if one.Proof != nil {
			must(*one.Proof == fmt.Sprintf("proofs/%d.proof", one.ID), "another proof")
			proven, note := event(read(*one.Proof), vkey)
			must(note == headText, "by another head")
			data = proven
			proofs++
		} else {
			must(one.Data != nil, "neither a proof nor data")
			data = decoded(*one.Data)
		}
		must(tlog.RecordHash(data) == hash(one.Leaf), "another leaf")
		leaves = append(leaves, hash(one.Leaf))
		value, rest := unpack(data[16:])
		fields, is := value.([]any)
		must(is && len(fields) == 7 && len(rest) == 0, "not an event")
		props, rest := unpack(fields[6].([]byte))
		must(len(rest) == 0 && same(one.Props, props), "other properties")
		told := fmt.Sprintf("%d|%s|%d|%d|%s|%s|", one.ID, one.Producer, one.Sequence, one.Ts, one.Type, one.User)
		must(told == fmt.Sprintf("%v|%v|%v|%v|%v|%v|", fields[:6]...), "another event")
		must(one.ID > last && one.ID <= number(said["up_to"], ""), "out of order")
		must(one.User == user && since <= one.Ts && one.Ts < until, "not of this sheet")
		last = one.ID
	}
	must(said["events"] == fmt.Sprintf("%d %v", len(leaves), root(leaves)), "not all of the events")
	for _, caveat := range found.Caveats {
		caveats = append(caveats, tlog.RecordHash([]byte(caveat)))
	}
	must(said["caveats"] == fmt.Sprintf("%d %v", len(caveats), root(caveats)), "not all of the caveats")
	there, err := os.ReadDir(filepath.Join(folder, "proofs"))
	must(err == nil || proofs == 0, "no proofs")
	must(len(there) == proofs, "proofs of other events")
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
	if about, err := os.Stat(files[0]); err == nil && about.IsDir() {
		sheet(files[0], vkey)
		return "ok"
	}
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
