//! Questions to the kernel over rtnetlink.
