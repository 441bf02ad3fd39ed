-- Until when the room was heard: what a bot that takes over says to be missing begins here.
alter table bot_leases add column heard_until timestamptz;
