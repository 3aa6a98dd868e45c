//! The one thing the sandbox needs that wasmtime's C API lacks: a guest that wants more than its limit ends there.

use wasmtime_c_api::wasmtime::StoreLimitsBuilder;
use wasmtime_c_api::WasmtimeStoreContextMut;

/// Limits a store for one instance with one memory and one table; growing past a limit ends the call with an error
/// that begins with "forcing trap when growing", instead of an answer that the guest may or may not look at.
///
/// # Safety
/// `wasmtime_store_limiter` was called on the store before: it puts the limiter in place whose limits are set here.
#[no_mangle]
pub unsafe extern "C" fn native_store_limits(
    mut context: WasmtimeStoreContextMut<'_>,
    memory_bytes: usize,
    table_elements: usize,
) {
    context.data_mut().store_limits = StoreLimitsBuilder::new()
        .memory_size(memory_bytes)
        .table_elements(table_elements)
        .instances(1)
        .tables(1)
        .memories(1)
        .trap_on_grow_failure(true)
        .build();
}
