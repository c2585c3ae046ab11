from support.docker import Docker


def test_a(docker: Docker, image: str) -> None:
    print(docker.run("images"))
