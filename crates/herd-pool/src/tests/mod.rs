//! Tests of the core. They stand apart from it because the interleaving test compiles the core's files over other
//! primitives, with which these tests do not run.

mod gate;
mod lines;
mod state;
mod step;
mod table;
mod tenant;
mod world;
