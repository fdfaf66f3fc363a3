package pickle

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/weights"
)

// This is a reader of the zip archives that torch.save writes: stored records in one folder. It believes nothing that is said
// twice unless both say the same, so every reader of an archive that passes sees the same records.

// record is a file in an archive.
type record struct {
	name   string // without the folder
	offset int64  // of its first byte
	size   int64
	crc    uint32 // 0 where torch was told not to compute it

	header, end int64 // where its local header begins and what follows its bytes ends
}

type archive struct {
	file    *weights.File
	root    string // the folder that all records are in
	records []record
	index   map[string]int

	compressed error // the first compressed record: TorchScript has some, state dicts have none
}

const (
	sigLocal      = "PK\x03\x04"
	sigCentral    = "PK\x01\x02"
	sigEnd        = "PK\x05\x06"
	sigEnd64      = "PK\x06\x06"
	sigLocator64  = "PK\x06\x07"
	sigDescriptor = "PK\x07\x08"

	endBytes     = 22
	end64Bytes   = 56
	locatorBytes = 20
	centralBytes = 46
	localBytes   = 30

	maxRecords        = 2_000_000
	maxDirectoryBytes = 256 << 20
)

func badZip(offset int64, detail, expected, actual string) error {
	return &Error{Class: ErrBadZip, Offset: offset, Detail: detail, Expected: expected, Actual: actual}
}

// readArchive reads the directory of a zip archive and checks it against the local headers.
func readArchive(f *weights.File) (*archive, error) {
	dir, err := readEnd(f)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, index: make(map[string]int, min(dir.count, 1<<16))}
	data := make([]byte, dir.size)
	if err := f.ReadFull(data, dir.offset); err != nil {
		return nil, err
	}
	at := 0
	for range dir.count {
		n, err := a.addCentral(data[at:], dir.offset+int64(at), dir.offset)
		if err != nil {
			return nil, err
		}
		at += n
	}
	if at != len(data) {
		return nil, badZip(dir.offset+int64(at), "directory", fmt.Sprintf("%d entries in %d bytes", dir.count, dir.size), fmt.Sprintf("%d bytes", at))
	}
	return a, a.checkDisjoint()
}

type directory struct {
	offset, size int64
	count        int
}

// readEnd finds the directory by the record at the end of the file, and its 64-bit twin.
func readEnd(f *weights.File) (directory, error) {
	var d directory
	if f.Size() < endBytes {
		return d, noEnd(f)
	}
	var buf [locatorBytes + endBytes]byte
	tail := buf[max(0, len(buf)-int(min(f.Size(), int64(len(buf))))):]
	if err := f.ReadFull(tail, f.Size()-int64(len(tail))); err != nil {
		return d, err
	}
	locator, end := tail[:len(tail)-endBytes], tail[len(tail)-endBytes:]
	at := f.Size() - endBytes
	if string(end[:4]) != sigEnd {
		return d, noEnd(f)
	}
	count, size, offset := uint64(le.Uint16(end[10:])), uint64(le.Uint32(end[12:])), uint64(le.Uint32(end[16:]))
	if le.Uint16(end[4:]) != 0 || le.Uint16(end[6:]) != 0 || uint64(le.Uint16(end[8:])) != count || le.Uint16(end[20:]) != 0 {
		return d, badZip(at, "end of the directory", "one volume, no comment", fmt.Sprintf("%x", end[4:]))
	}
	if len(locator) == locatorBytes && string(locator[:4]) == sigLocator64 {
		at -= locatorBytes
		var end64 [end64Bytes]byte
		if p := le.Uint64(locator[8:]); at < end64Bytes || p != uint64(at-end64Bytes) {
			return d, badZip(at, "64-bit end of the directory", fmt.Sprintf("at byte %d", at-end64Bytes), fmt.Sprint(p))
		}
		at -= end64Bytes
		if err := f.ReadFull(end64[:], at); err != nil {
			return d, err
		}
		c, s, o := le.Uint64(end64[32:]), le.Uint64(end64[40:]), le.Uint64(end64[48:])
		switch {
		case string(end64[:4]) != sigEnd64 || le.Uint64(end64[4:]) != end64Bytes-12 || le.Uint32(locator[4:]) != 0 || le.Uint32(locator[16:]) != 1 ||
			le.Uint32(end64[16:]) != 0 || le.Uint32(end64[20:]) != 0 || le.Uint64(end64[24:]) != c:
			return d, badZip(at, "64-bit end of the directory", "one volume", fmt.Sprintf("%x", end64[:24]))
		case !same(count, c, math.MaxUint16) || !same(size, s, math.MaxUint32) || !same(offset, o, math.MaxUint32):
			return d, badZip(at, "the two ends of the directory differ", fmt.Sprint(count, size, offset), fmt.Sprint(c, s, o))
		}
		count, size, offset = c, s, o
	}
	switch {
	case size > uint64(at) || offset != uint64(at)-size:
		return d, badZip(at, "directory", fmt.Sprintf("up to byte %d", at), fmt.Sprintf("%d bytes from %d", size, offset))
	case count == 0:
		return d, badZip(at, "the archive is empty", "", "")
	case count > size/centralBytes:
		return d, badZip(at, "directory", fmt.Sprintf("%d entries", count), fmt.Sprintf("%d bytes", size))
	case count > maxRecords || size > maxDirectoryBytes:
		return d, &Error{Class: ErrLimit, Offset: at, Detail: "directory", Expected: fmt.Sprintf("at most %d records, %d bytes", maxRecords, maxDirectoryBytes), Actual: fmt.Sprintf("%d, %d", count, size)}
	}
	return directory{int64(offset), int64(size), int(count)}, nil
}

// same reports whether a short field says what the long one does, or that one has to look there.
func same(short, long, full uint64) bool { return short == long || short == full && long >= full }

// noEnd tells why a file that begins like a zip archive doesn't end like one.
func noEnd(f *weights.File) error {
	tail := make([]byte, min(f.Size(), math.MaxUint16+endBytes))
	base := f.Size() - int64(len(tail))
	if err := f.ReadFull(tail, base); err != nil {
		return err
	}
	const what = "a zip archive with its directory at the end"
	if i := bytes.LastIndex(tail, []byte(sigEnd)); i >= 0 && len(tail)-i >= endBytes {
		return badZip(base+int64(i+endBytes), "bytes after the end of the archive", "", fmt.Sprint(len(tail)-i-endBytes))
	}
	if n := len(tail); n >= 2*endBytes && len(bytes.Trim(tail[n-2*endBytes:], "\x00")) == 0 {
		return &Error{Class: ErrBadZip, Offset: f.Size(), Expected: what, Actual: "zeros: a write that was cut off", Remedy: "download or save it again"}
	}
	return &Error{Class: ErrTruncated, Offset: f.Size(), Expected: what, Actual: "none", Remedy: "download or save it again"}
}

const dosFolder = 0x10

// addCentral adds the record whose entry in the directory data begins with, and returns the entry's length. limit is where the
// directory begins: records lie before it.
func (a *archive) addCentral(data []byte, at, limit int64) (int, error) {
	if len(data) < centralBytes || string(data[:4]) != sigCentral {
		return 0, badZip(at, "directory", "an entry", fmt.Sprintf("%.8x", data[:min(8, len(data))]))
	}
	flags, method, crc := le.Uint16(data[8:]), le.Uint16(data[10:]), le.Uint32(data[16:])
	packed, size := uint64(le.Uint32(data[20:])), uint64(le.Uint32(data[24:]))
	nameLen, extraLen, commentLen := int(le.Uint16(data[28:])), int(le.Uint16(data[30:])), int(le.Uint16(data[32:]))
	disk, header := le.Uint16(data[34:]), uint64(le.Uint32(data[42:]))
	n := centralBytes + nameLen + extraLen + commentLen
	if n > len(data) {
		return 0, badZip(at, "directory", fmt.Sprintf("an entry of %d bytes", n), fmt.Sprint(len(data)))
	}
	full := string(data[centralBytes : centralBytes+nameLen])
	extra, ok := zip64Extra(data[centralBytes+nameLen:][:extraLen])
	for _, v := range []*uint64{&size, &packed, &header} {
		if *v == math.MaxUint32 && ok {
			if ok = len(extra) >= 8; ok {
				*v, extra = le.Uint64(extra), extra[8:]
			}
		}
	}
	named := func(err error) error {
		if e, is := err.(*Error); is {
			e.Detail = strings.TrimSuffix(fmt.Sprintf("record %.100q: %s", full, e.Detail), ": ")
		}
		return err
	}
	switch {
	case !ok:
		return 0, named(badZip(at, "extra fields", "", ""))
	case flags&^(flagDescriptor|flagUTF8) != 0:
		return 0, named(badZip(at, "flags", "neither encrypted nor masked", fmt.Sprintf("%#x", flags)))
	case commentLen != 0 || disk != 0:
		return 0, named(badZip(at, "", "one volume, no comment", ""))
	case data[38]&dosFolder != 0: // torch takes memory for the data of such a record, and doesn't read it
		return 0, named(badZip(at, "external attributes", "those of a file", "those of a folder"))
	case method == 0 && packed != size:
		return 0, named(badZip(at, "stored", fmt.Sprintf("%d bytes", size), fmt.Sprint(packed)))
	}
	name, err := a.recordName(full)
	if err != nil {
		return 0, named(&Error{Class: err, Offset: at, Expected: "a name in one folder, as torch.save makes"})
	}
	if method != 0 {
		if a.compressed == nil {
			class := ErrBadZip
			if packed > 0 && size/packed > 100 {
				class = ErrLimit
			}
			a.compressed = named(&Error{Class: class, Offset: at, Expected: "stored records, as torch.save makes", Actual: fmt.Sprintf("method %d, %d bytes compressed to %d", method, size, packed)})
		}
		return n, nil
	}
	if header > uint64(limit) || size > uint64(limit)-header {
		return 0, named(badZip(at, "", fmt.Sprintf("%d bytes before byte %d", size, limit), fmt.Sprintf("from %d", header)))
	}
	r := record{name: name, size: int64(size), crc: crc, header: int64(header)}
	if err := a.readLocal(&r, full, flags, limit); err != nil {
		return 0, named(err)
	}
	if _, dup := a.index[name]; dup {
		return 0, named(&Error{Class: ErrDuplicate, Offset: at})
	}
	a.index[name] = len(a.records)
	a.records = append(a.records, r)
	return n, nil
}

// recordName takes the folder off a record's name; the first record says what it is. The error is a class.
func (a *archive) recordName(full string) (string, error) {
	if !utf8.ValidString(full) || strings.ContainsAny(full, "\x00\\") || strings.HasPrefix(full, "/") {
		return "", ErrPath
	}
	parts := strings.Split(full, "/")
	for i, p := range parts {
		if p == ".." || p == "." || p == "" && i < len(parts)-1 {
			return "", ErrPath
		}
	}
	if len(parts) < 2 || a.root != "" && parts[0] != a.root {
		return "", ErrBadZip
	}
	a.root = parts[0]
	return full[len(a.root)+1:], nil
}

// readLocal finds a record's bytes by its local header, which must not contradict the directory.
func (a *archive) readLocal(r *record, full string, flags uint16, limit int64) error {
	buf := make([]byte, min(limit-r.header, localBytes+int64(len(full))+256))
	if err := a.file.ReadFull(buf, r.header); err != nil {
		return err
	}
	if len(buf) < localBytes+len(full) || string(buf[:4]) != sigLocal {
		return badZip(r.header, "", "a local header", fmt.Sprintf("%.8x", buf[:min(8, len(buf))]))
	}
	nameLen, extraLen := int(le.Uint16(buf[26:])), int(le.Uint16(buf[28:]))
	if nameLen != len(full) || string(buf[localBytes:localBytes+nameLen]) != full {
		return badZip(r.header, "the name in the local header differs", "", "")
	}
	if le.Uint16(buf[6:]) != flags || le.Uint16(buf[8:]) != 0 {
		return badZip(r.header, "flags or method in the local header differ", "", "")
	}
	r.offset = r.header + localBytes + int64(nameLen) + int64(extraLen)
	if r.offset > limit || r.size > limit-r.offset {
		return badZip(r.header, "", fmt.Sprintf("%d bytes before byte %d", r.size, limit), fmt.Sprintf("from %d", r.offset))
	}
	r.end = r.offset + r.size
	extra := buf[localBytes+nameLen:]
	if extraLen <= len(extra) {
		extra = extra[:extraLen]
	} else {
		extra = make([]byte, extraLen)
		if err := a.file.ReadFull(extra, r.offset-int64(extraLen)); err != nil {
			return err
		}
	}
	wide, ok := zip64Extra(extra)
	if !ok {
		return badZip(r.header, "extra fields of the local header", "", "")
	}
	crc, packed, size := le.Uint32(buf[14:]), uint64(le.Uint32(buf[18:])), uint64(le.Uint32(buf[22:]))
	descriptor := flags&flagDescriptor != 0
	if descriptor && crc == 0 && packed == 0 && size == 0 { // they follow the bytes
		for ; len(wide) >= 8; wide = wide[8:] { // torch writes the size, 0 and, if it is large, the place of the header
			if v := le.Uint64(wide); v != 0 && v != uint64(r.size) && v != uint64(r.header) {
				return badZip(r.header, "size in the local header differs", fmt.Sprint(r.size), fmt.Sprint(v))
			}
		}
	} else {
		if packed == math.MaxUint32 && size == math.MaxUint32 && len(wide) >= 16 {
			size, packed = le.Uint64(wide), le.Uint64(wide[8:])
		}
		if crc != r.crc || packed != uint64(r.size) || size != uint64(r.size) {
			return badZip(r.header, "size or checksum in the local header differs", fmt.Sprintf("%d bytes, %08x", r.size, r.crc), fmt.Sprintf("%d, %08x", size, crc))
		}
	}
	if descriptor {
		return a.skipDescriptor(r, limit)
	}
	return nil
}

// skipDescriptor checks what follows a record's bytes: checksum and sizes, of 32 or of 64 bits, after a signature or without.
func (a *archive) skipDescriptor(r *record, limit int64) error {
	var buf [24]byte
	p := buf[:min(int64(len(buf)), limit-r.end)]
	if err := a.file.ReadFull(p, r.end); err != nil {
		return err
	}
	head := 0
	if bytes.HasPrefix(p, []byte(sigDescriptor)) {
		head = 4
	}
	d := p[head:]
	switch {
	case len(d) >= 20 && le.Uint32(d) == r.crc && le.Uint64(d[4:]) == uint64(r.size) && le.Uint64(d[12:]) == uint64(r.size):
		r.end += int64(head) + 20
	case len(d) >= 12 && le.Uint32(d) == r.crc && uint64(le.Uint32(d[4:])) == uint64(r.size) && uint64(le.Uint32(d[8:])) == uint64(r.size):
		r.end += int64(head) + 12
	default:
		return badZip(r.end, "the data descriptor differs", fmt.Sprintf("%d bytes, %08x", r.size, r.crc), fmt.Sprintf("%x", p))
	}
	return nil
}

// zip64Extra is the content of the 64-bit field among a header's extra fields; empty if there is none.
func zip64Extra(extra []byte) (content []byte, ok bool) {
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if n > len(extra)-4 {
			return nil, false
		}
		if id == 1 {
			return extra[4 : 4+n], true
		}
		extra = extra[4+n:]
	}
	return nil, len(bytes.Trim(extra, "\x00")) == 0
}

// checkDisjoint: no two records may share bytes, headers included.
func (a *archive) checkDisjoint() error {
	order := make([]int, len(a.records))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return int(min(1, max(-1, a.records[i].header-a.records[j].header))) })
	for k := 1; k < len(order); k++ {
		prev, r := &a.records[order[k-1]], &a.records[order[k]]
		if r.header < prev.end {
			return badZip(r.header, fmt.Sprintf("records %.100q and %.100q overlap", prev.name, r.name), "", "")
		}
	}
	return nil
}

// find finds a record by its name in the folder.
func (a *archive) find(name string) *record {
	i, ok := a.index[name]
	if !ok {
		return nil
	}
	return &a.records[i]
}

// read is a small record's content, checked.
func (a *archive) read(r *record, limit int64) ([]byte, error) {
	if r.size > limit {
		return nil, &Error{Class: ErrLimit, Offset: r.offset, Detail: fmt.Sprintf("record %q", r.name), Expected: fmt.Sprintf("at most %d bytes", limit), Actual: fmt.Sprint(r.size)}
	}
	data := make([]byte, r.size)
	if err := a.file.ReadFull(data, r.offset); err != nil {
		return nil, err
	}
	return data, r.checkSum(crc32.ChecksumIEEE(data))
}

// verify reads a record and checks its sum.
func (a *archive) verify(r *record, buf []byte) error {
	if r.crc == 0 {
		return nil
	}
	sum := uint32(0)
	for off := int64(0); off < r.size; off += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), r.size-off)]
		if err := a.file.ReadFull(part, r.offset+off); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, part)
	}
	return r.checkSum(sum)
}

func (r *record) checkSum(sum uint32) error {
	if r.crc == 0 || r.crc == sum {
		return nil
	}
	return &Error{Class: ErrChecksum, Offset: r.offset, Detail: fmt.Sprintf("record %.100q", r.name), Expected: fmt.Sprintf("%08x", r.crc), Actual: fmt.Sprintf("%08x", sum),
		Remedy: "the file was damaged: download or save it again"}
}
