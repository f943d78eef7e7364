//! Configuration: edgekeep.toml and EdgeX's own files, parsed once into types.
