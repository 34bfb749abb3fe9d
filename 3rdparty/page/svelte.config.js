// The page's own configuration, with a version that is the same for the same source: the default is the time of day.
import config from './svelte.upstream.js';

config.kit.version = { name: process.env.TRIT_PAGE_VERSION };
export default config;
