// The page's own configuration, and a list of the folders of packages whose modules went into the page, for their notices.
import upstream from './vite.upstream';
import { writeFileSync } from 'node:fs';
import { defineConfig, mergeConfig } from 'vite';

const packages = {
	apply: 'build',
	generateBundle() {
		if (this.environment.name !== 'client') return;

		const folders = [...this.getModuleIds()]
			.map((id) => id.match(/(node_modules\/(?:.*node_modules\/)?(?:@[^/]+\/)?[^/]+)\//)?.[1])
			.filter(Boolean);

		writeFileSync('trit-packages.json', JSON.stringify([...new Set(folders)].sort()));
	},
	name: 'trit:packages'
};

export default defineConfig((env) => mergeConfig(upstream(env), { plugins: [packages] }));
