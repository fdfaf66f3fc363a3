// Package peft has the adapters of the Python package peft: small sets of trained values over a model whose own
// weights stay. LoRA (with rslora and DoRA) and IA³ are here; other kinds are refused by name.
//
// The methods of pretrained.Model (LoadAdapter, AddAdapter, SetAdapter, …) are what most programs use. They work
// through Adapters, which takes any module of package nn and knows nothing of package pretrained.
package peft
