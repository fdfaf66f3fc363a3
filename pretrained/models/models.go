// Package models brings in all architectures:
//
//	import _ "github.com/torchgo/torchgo/pretrained/models"
package models

import (
	_ "github.com/torchgo/torchgo/pretrained/models/bert" // each registers itself
	_ "github.com/torchgo/torchgo/pretrained/models/llama"
)
