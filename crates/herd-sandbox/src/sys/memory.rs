use std::{ffi::c_void, io, os::fd::AsFd, ptr, slice};

use rustix::{
    fs::{SealFlags, fcntl_get_seals},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// A sealed memory file, mapped to be read. Dropping it leaves no trace of its contents in this process.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes, of which there must be at least one.
    ///
    /// # Errors
    /// `InvalidInput` if the file is shorter, or not sealed against being written or cut.
    pub(crate) fn new(file: impl AsFd, length: u64) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK | SealFlags::WRITE) {
            return Err(invalid("the plan is not sealed"));
        }
        if rustix::fs::fstat(&file)?.st_size.cast_unsigned() < length {
            return Err(invalid("the plan is shorter than announced"));
        }
        let length = usize::try_from(length).map_err(|_| invalid("the plan is too large"))?;
        // SAFETY: with no address asked for, the kernel chooses one where nothing is.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        Ok(Self { start, length })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `length` bytes long and lives as long as `self`. The seals keep everybody from writing
        // to the file and from making it shorter, so the bytes are there and do not change.
        unsafe { slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of its bytes outlives `self`.
        // It fails only for a range that is none, which this is not.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
