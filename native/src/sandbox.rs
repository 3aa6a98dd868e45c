//! What the sandbox needs that wasmtime's C API lacks: a guest that wants more than its limit ends there, and two
//! settings.

use std::num::NonZeroUsize;

use wasmtime_c_api::wasmtime::{Config, Enabled, PoolingAllocationConfig, StoreLimitsBuilder};
use wasmtime_c_api::{wasm_config_t, wasmtime_pooling_allocation_config_t, WasmtimeStoreContextMut};

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

// Both structs of the C API are `repr(C)` around one private field, so a pointer to the one points to the other.
const _: () = assert!(size_of::<wasm_config_t>() == size_of::<Config>());
const _: () = assert!(size_of::<wasmtime_pooling_allocation_config_t>() == size_of::<PoolingAllocationConfig>());

/// # Safety
/// `pool` is alive and used by nobody else during the call.
#[no_mangle]
pub unsafe extern "C" fn native_pool_scan_pages(pool: *mut wasmtime_pooling_allocation_config_t) {
    (*pool.cast::<PoolingAllocationConfig>()).pagemap_scan(Enabled::Auto);
}

/// # Safety
/// `config` is alive and used by nobody else during the call.
#[no_mangle]
pub unsafe extern "C" fn native_config_backtrace_frames(config: *mut wasm_config_t, frame_max: usize) {
    (*config.cast::<Config>()).wasm_backtrace_max_frames(NonZeroUsize::new(frame_max));
}
