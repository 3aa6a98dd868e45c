//! What the sandbox needs that wasmtime's C API lacks: a guest that wants more than its limit ends there, the peak
//! of a component's memories, and two settings.

use std::num::NonZeroUsize;

use wasmtime_c_api::wasmtime::{
    Config, Enabled, Error, PoolingAllocationConfig, ResourceLimiter, Result, Store, StoreLimits, StoreLimitsBuilder,
};
use wasmtime_c_api::{
    wasm_config_t, wasmtime_pooling_allocation_config_t, wasmtime_store_t, WasmtimeStoreContextMut, WasmtimeStoreData,
};

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

/// Limits of a store, and the most that its memories held together: of a component nobody outside can ask them.
pub struct NativeLimiter {
    limits: StoreLimits,
    held_bytes: usize,
    peak_bytes: usize,
}

impl ResourceLimiter for NativeLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let is_granted = self.limits.memory_growing(current, desired, maximum)?;
        if is_granted {
            self.held_bytes = self.held_bytes.saturating_add(desired.saturating_sub(current));
            self.peak_bytes = self.peak_bytes.max(self.held_bytes);
        }
        Ok(is_granted)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        self.limits.memory_grow_failed(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<()> {
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

#[repr(C)]
pub struct NativeLimits {
    memory_bytes: usize,
    table_elements: usize,
    instances: usize,
    tables: usize,
    memories: usize,
}

/// A store's limiter in place of that of `wasmtime_store_limiter`; a growth that it refuses is the guest's business.
///
/// # Safety
/// `store` is alive and used by nobody else during the call; what is returned is destroyed after the store.
#[no_mangle]
pub unsafe extern "C" fn native_limiter_create(
    store: *mut wasmtime_store_t,
    limits: *const NativeLimits,
) -> *mut NativeLimiter {
    let limits = &*limits;
    let limiter = Box::into_raw(Box::new(NativeLimiter {
        limits: StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .table_elements(limits.table_elements)
            .instances(limits.instances)
            .tables(limits.tables)
            .memories(limits.memories)
            .build(),
        held_bytes: 0,
        peak_bytes: 0,
    }));
    let address = limiter as usize;
    (*store.cast::<Store<WasmtimeStoreData>>()).limiter(move |_| &mut *(address as *mut NativeLimiter));
    limiter
}

/// # Safety
/// `limiter` is alive and its store runs nothing during the call.
#[no_mangle]
pub unsafe extern "C" fn native_limiter_peak(limiter: *const NativeLimiter) -> usize {
    (*limiter).peak_bytes
}

/// # Safety
/// The store is gone, and nobody uses the limiter any more.
#[no_mangle]
pub unsafe extern "C" fn native_limiter_destroy(limiter: *mut NativeLimiter) {
    drop(Box::from_raw(limiter));
}

// The structs of the C API are `repr(C)` around one private field, so a pointer to the one points to the other.
const _: () = assert!(size_of::<wasmtime_store_t>() == size_of::<Store<WasmtimeStoreData>>());
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
