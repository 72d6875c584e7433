from cases import case, main
@case
async def nothing():
    pass
if __name__ == "__main__":
    main([])
