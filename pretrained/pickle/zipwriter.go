package pickle

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// zipWriter writes an archive as torch.save does, byte for byte: records are stored, their data begin at multiples
// of alignment, size and checksum follow them, dates are zero. The padding has to be PyTorch's own, as a PyTorch that is
// asked to (calculate_storage_offsets) computes where records begin instead of looking it up.
type zipWriter struct {
	ctx     context.Context
	w       io.Writer
	at      int64 // bytes written
	records []zipRecord
}

const (
	// folder is that of all records. torch.save takes the name of the file, or this one if there is none; so ours
	// has the same bytes under any name.
	folder = "archive/"

	alignment = 64 // of the data of records

	localSignature      = 0x04034b50
	descriptorSignature = 0x08074b50
	centralSignature    = 0x02014b50
	end64Signature      = 0x06064b50
	locator64Signature  = 0x07064b50
	endSignature        = 0x06054b50

	flagDescriptor = 1 << 3  // size and checksum follow the data
	flagUTF8       = 1 << 11 // of names

	localHeaderBytes = 30
	zip64Tag         = 1
	max32            = math.MaxUint32 // means: see the zip64 field
)

type zipRecord struct {
	name           string
	flags          uint16
	crc            uint32
	size, headerAt int64
}

// zip64 is the extra field for what 32 bits can't hold; nil if there is nothing. The size comes twice: as it is, and stored.
func (r *zipRecord) zip64(stored int64) []byte {
	var p []byte
	if r.size >= max32 {
		p = le.AppendUint64(le.AppendUint64(p, uint64(r.size)), uint64(stored))
	}
	if r.headerAt >= max32 {
		p = le.AppendUint64(p, uint64(r.headerAt))
	}
	if p == nil {
		return nil
	}
	return append(le.AppendUint16(le.AppendUint16(nil, zip64Tag), uint16(len(p))), p...)
}

var le = binary.LittleEndian

func (z *zipWriter) write(p []byte) error {
	if err := z.ctx.Err(); err != nil {
		return err
	}
	n, err := z.w.Write(p)
	z.at += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// record writes a record of size bytes, which data writes.
func (z *zipWriter) record(name string, size int64, data func(io.Writer) error) error {
	r := zipRecord{name: folder + name, flags: flagUTF8, size: size, headerAt: z.at}
	if size > 0 {
		r.flags |= flagDescriptor
	}
	extra := r.zip64(0)
	padding := -(z.at + localHeaderBytes + int64(len(r.name)+len(extra)) + 4) & (alignment - 1)
	extra = le.AppendUint16(append(extra, "FB"...), uint16(padding))
	for range padding {
		extra = append(extra, 'Z')
	}
	head := le.AppendUint32(nil, localSignature)
	head = le.AppendUint16(head, 0) // version
	head = le.AppendUint16(head, r.flags)
	head = append(head, make([]byte, 18)...) // stored; no date; checksum and sizes follow
	head = le.AppendUint16(head, uint16(len(r.name)))
	head = le.AppendUint16(head, uint16(len(extra)))
	if err := z.write(append(append(head, r.name...), extra...)); err != nil {
		return err
	}
	sum := &summer{z: z, left: size}
	err := data(sum)
	if err == nil {
		err = sum.err // if data swallowed it
	}
	if err == nil && sum.left > 0 {
		err = &Error{Class: ErrBadStorage, Detail: "storage", Expected: fmt.Sprintf("%d bytes", size), Actual: fmt.Sprint(size - sum.left)}
	}
	if err != nil {
		return err
	}
	r.crc = sum.crc
	if size > 0 {
		foot := le.AppendUint32(le.AppendUint32(nil, descriptorSignature), r.crc)
		if r.zip64(0) == nil {
			foot = le.AppendUint32(le.AppendUint32(foot, uint32(size)), uint32(size))
		} else {
			foot = le.AppendUint64(le.AppendUint64(foot, uint64(size)), uint64(size))
		}
		if err := z.write(foot); err != nil {
			return err
		}
	}
	z.records = append(z.records, r)
	return nil
}

// bytes writes a record that is at hand.
func (z *zipWriter) bytes(name string, data []byte) error {
	return z.record(name, int64(len(data)), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// close writes the directory.
func (z *zipWriter) close() error {
	start := z.at
	for _, r := range z.records {
		extra := r.zip64(r.size)
		p := le.AppendUint32(nil, centralSignature)
		p = le.AppendUint32(p, 0) // versions
		p = le.AppendUint16(p, r.flags)
		p = append(p, make([]byte, 6)...) // stored; no date
		p = le.AppendUint32(p, r.crc)
		p = le.AppendUint32(p, uint32(min(r.size, max32)))
		p = le.AppendUint32(p, uint32(min(r.size, max32)))
		p = le.AppendUint16(p, uint16(len(r.name)))
		p = le.AppendUint16(p, uint16(len(extra)))
		p = append(p, make([]byte, 10)...) // no comment; first disk; no attributes
		p = le.AppendUint32(p, uint32(min(r.headerAt, max32)))
		if err := z.write(append(append(p, r.name...), extra...)); err != nil {
			return err
		}
	}
	end, n := z.at, len(z.records)
	p := le.AppendUint64(le.AppendUint32(nil, end64Signature), 44) // bytes that follow
	p = le.AppendUint16(le.AppendUint16(p, 0x031e), 45)            // made by PyTorch's library on Unix; zip64
	p = append(p, make([]byte, 8)...)                              // first disk
	for _, v := range []int64{int64(n), int64(n), end - start, start} {
		p = le.AppendUint64(p, uint64(v))
	}
	p = le.AppendUint64(append(le.AppendUint32(p, locator64Signature), 0, 0, 0, 0), uint64(end))
	p = append(le.AppendUint32(p, 1), 'P', 'K', 5, 6, 0, 0, 0, 0)
	p = le.AppendUint16(le.AppendUint16(p, uint16(min(n, math.MaxUint16))), uint16(min(n, math.MaxUint16)))
	p = le.AppendUint32(le.AppendUint32(p, uint32(min(end-start, max32))), uint32(min(start, max32)))
	return z.write(le.AppendUint16(p, 0))
}

// summer passes on what a storage writes, sums it up and holds it to its size.
type summer struct {
	z    *zipWriter
	left int64
	crc  uint32
	err  error
}

func (s *summer) Write(p []byte) (int, error) {
	if s.err == nil && int64(len(p)) > s.left {
		s.err = &Error{Class: ErrBadStorage, Detail: "storage: more bytes than were announced", Expected: fmt.Sprintf("%d more", s.left), Actual: fmt.Sprint(len(p))}
	}
	if s.err != nil {
		return 0, s.err
	}
	written := 0
	for len(p) > 0 { // in pieces that a cache holds
		piece := p[:min(len(p), 256<<10)]
		s.crc = crc32.Update(s.crc, crc32.IEEETable, piece)
		if s.err = s.z.write(piece); s.err != nil {
			break
		}
		written, p = written+len(piece), p[len(piece):]
	}
	s.left -= int64(written)
	return written, s.err
}
