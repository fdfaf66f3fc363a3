// Package blocks holds the parts that several architectures are made of. Each is written once, with what
// differs between models as an option:
//
//   - RoPE: rotary position embeddings of every type that transformers knows, as pure functions of a config;
//     RotaryEmbedding is the module with its state, Rotate applies it
//   - SelfAttention: grouped-query attention with rotary positions
//   - GatedMLP: the feed-forward network of SwiGLU and its kin
//   - RMSNorm: with transformers' rounding in half precision
//
// Masks, losses and output recording, which need no parameters, are in package pretrained.
//
// Letters in shape comments: B batch, T sequence, H heads of queries, G heads of keys and values, D size of a
// head, C hidden size, R rotated dimensions of a head.
package blocks
