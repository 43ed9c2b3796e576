"""VTrans: Accelerating Transformer Compression with Variational Information Bottleneck based Pruning."""
