package torch

import (
	"runtime"

	"github.com/torchgo/torchgo/cgo"
)

// Object is an instance of a class that C++ has registered with TorchScript: the packed weights of
// quantized layers, process groups. Operators make and take them; an operator that gets one of another
// class than its schema names is an [ErrArgument]. It is freed when the collector finds it unreachable.
type Object struct{ handle cgo.Object }

func newObject(handle cgo.Object) *Object {
	o := &Object{handle: handle}
	runtime.AddCleanup(o, func(h cgo.Object) { _ = cgo.ObjectFree(h) }, handle)
	return o
}

func (c *call) object(o *Object) {
	if o == nil {
		c.invalid("expected an object, got nil")
	}
	c.objects = append(c.objects, o)
	c.head(cgo.TagObject, 0)
	c.word(uint64(o.handle)) // alive: run keeps c.objects
}

func (c *call) objectList(list []*Object) {
	c.head(cgo.TagList, len(list))
	n := c.nargs
	for _, o := range list {
		c.object(o)
	}
	c.nargs = n // the elements are no arguments
}

func (c *call) tensorLists(lists [][]*Tensor) {
	c.head(cgo.TagList, len(lists))
	n := c.nargs
	for _, list := range lists {
		c.tensors(list)
	}
	c.nargs = n
}

func (c *call) stream(s Stream) {
	kind, index := s.device.c10(c.op.label())
	c.ints([]int{kind, index, s.id})
}

func (c *call) retObject() *Object {
	if head := c.ret(); head&0xff != cgo.TagObject {
		c.unexpected("an object", head)
	}
	return newObject(cgo.Object(c.ret()))
}

func (c *call) retTensorLists() [][]*Tensor {
	head := c.ret()
	if head&0xff != cgo.TagList {
		c.unexpected("a list of lists of tensors", head)
	}
	lists := make([][]*Tensor, head>>8)
	for i := range lists {
		lists[i] = c.retTensors()
	}
	return lists
}
