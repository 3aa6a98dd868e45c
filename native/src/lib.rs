//! What C sees of the Rust side.  `include/nexus_native.h` is the manual; this file and it change together.
//!
//! wasmtime's own C API is exported unchanged.  The rest is ours: text in, text out, never a panic across the border.

mod border;
mod pattern;
mod profile;
mod rego;
mod rego_explain;
mod rego_syntax;
mod sandbox;
mod schema;
mod snapshot;

pub use wasmtime_c_api::*;
